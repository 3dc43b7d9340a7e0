-- Waits until a change is visible that was not in the snapshot `since`. Returns false if there is none after `seconds`.
--
-- It looks every millisecond, and after 5 ms every second one. The conditions on xid are those of `read_changes.sql`,
-- which the indexes have; but the view of both tables would check its guard several times in each look. A look at many
-- uncommitted changes takes long; it does not look again when the time is over. Where the role may not execute
-- pg_sleep, which some teams revoke from PUBLIC, it looks once.
--
-- The relay reads in a statement of its own, whose transaction takes its locks again (see `catalogue_version`).
CREATE OR REPLACE FUNCTION notifier.wait_for_changes(since text, seconds double precision) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    later CONSTANT xid8 := pg_snapshot_xmax(since::pg_snapshot);
    running CONSTANT xid8[] := ARRAY(SELECT pg_snapshot_xip(since::pg_snapshot));
    began CONSTANT timestamptz := clock_timestamp();
    may_sleep CONSTANT boolean := has_function_privilege('pg_catalog.pg_sleep(double precision)', 'EXECUTE');
    waited double precision;
BEGIN
    LOOP
        -- Each evaluation has a snapshot of its own.
        IF EXISTS (SELECT FROM notifier.changes_0 AS c WHERE c.xid >= later)
           OR EXISTS (SELECT FROM notifier.changes_1 AS c WHERE c.xid >= later)
           OR EXISTS (SELECT FROM notifier.changes_0 AS c WHERE c.xid = ANY (running))
           OR EXISTS (SELECT FROM notifier.changes_1 AS c WHERE c.xid = ANY (running)) THEN
            RETURN true;
        END IF;
        waited := extract(epoch FROM clock_timestamp() - began);
        EXIT WHEN waited >= seconds OR NOT may_sleep;
        PERFORM pg_sleep(CASE WHEN waited < 0.005 THEN 0.001 ELSE 0.002 END);
    END LOOP;
    RETURN false;
END
$$;
