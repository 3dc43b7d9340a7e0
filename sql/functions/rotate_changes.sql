-- Makes the other table of changes the current one. Returns whether it did: not while a writer marks the log
-- as full (see lock_sequence), or that mark would be overwritten. One call: no relay freezes in the middle.
--
-- SECURITY DEFINER: the role of `serve` may not set the sequence, which no rollback undoes. Code of the application that the
-- planner runs as that role does so in transactions that are not DEFERRABLE, see `refuse_reading.sql`. The role is that of
-- SET ROLE where there is one: `migrate --grant` tries queries as the role of `serve`, in the session of another.
CREATE OR REPLACE FUNCTION notifier.rotate_changes() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_deferrable') = 'off' AND NOT has_sequence_privilege(
        coalesce(nullif(current_setting('role'), 'none')::name, session_user), 'notifier.change_ids', 'UPDATE'
    ) THEN
        RAISE EXCEPTION 'the log is only changed in a DEFERRABLE transaction' USING ERRCODE = 'insufficient_privilege';
    END IF;
    BEGIN
        LOCK TABLE notifier.log IN EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    PERFORM setval('notifier.change_ids', ((last_value >> :table_bit) + 1) << :table_bit)
    FROM notifier.change_ids WHERE last_value < :full_mark;
    RETURN FOUND;
END
$$;
