-- After an overflow: empties the tables of changes that nobody writes to, read or not, and lets capture
-- store again. Returns the transaction id before which all must have ended until everything that was
-- dropped has come to light; null where none is in flight. One call: see sql/functions/truncate_changes.sql.
--
-- It does not wait for the lock under which capture says that the log is full: whoever holds it may stay
-- in flight for long. If one says so just now and is overwritten, its transaction is in flight, and is
-- told of when it has ended.
CREATE OR REPLACE FUNCTION notifier.reopen() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    full_mark CONSTANT bigint := :full_mark;
    margin CONSTANT bigint := 1048576;     -- ids go on growing
    present pg_snapshot;
BEGIN
    FOR which IN 0..1 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE notifier.changes_%s IN ACCESS EXCLUSIVE MODE NOWAIT', which);
            EXECUTE format('TRUNCATE notifier.changes_%s', which);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    PERFORM setval('notifier.change_ids', last_value - full_mark + margin)
    FROM notifier.change_ids WHERE last_value >= full_mark;
    present := pg_current_snapshot();
    IF EXISTS (SELECT FROM pg_snapshot_xip(present)) THEN  -- its xmin may be our own
        RETURN pg_snapshot_xmax(present)::text::bigint;
    END IF;
    RETURN NULL;
END
$$;
