-- After an overflow: empties each table of changes that no open transaction has written to, unread changes
-- included, and lets capture store again. Open transactions may have dropped changes: all of them are before
-- the transaction id that is returned; null: there are none. One call, and a
-- short lock_timeout: see truncate_changes.
--
-- It does not wait for the lock under which writers mark the log as full (lock_sequence): a writer may hold
-- it for long. If one marks it just now and is overwritten, its transaction is open, and so is accounted for.
--
-- SECURITY DEFINER for the reason that `rotate_changes.sql` gives.
CREATE OR REPLACE FUNCTION notifier.reopen() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms'
AS $$
DECLARE
    full_mark CONSTANT bigint := :full_mark;
    margin CONSTANT bigint := 1048576;     -- ids keep growing
    present pg_snapshot;
BEGIN
    IF current_setting('transaction_deferrable') = 'off' AND NOT has_sequence_privilege(
        coalesce(nullif(current_setting('role'), 'none')::name, session_user), 'notifier.change_ids', 'UPDATE'
    ) THEN
        RAISE EXCEPTION 'the log is only changed in a DEFERRABLE transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
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
