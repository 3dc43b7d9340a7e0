-- Raises: a view that guards the log calls it in a transaction that cannot write. Nodes read the log in transactions that can,
-- and the tables of the application in others; so code of the application that the planner runs there reads nothing of the log.
-- A transaction that cannot write stays so once it has a snapshot.
CREATE OR REPLACE FUNCTION notifier.refuse_reading() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the log is not readable in a transaction that cannot write' USING ERRCODE = 'insufficient_privilege';
END
$$;
