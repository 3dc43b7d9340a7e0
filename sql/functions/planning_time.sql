-- The time in microseconds at which the planner calls it: IMMUTABLE, so that it does so once for each plan. The literals
-- of the relations are in that plan, so PostgreSQL discards it when one of the relations is altered.
CREATE OR REPLACE FUNCTION notifier.planning_time(relations regclass[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN extract(epoch FROM clock_timestamp()) * 1000000;
END
$$;
