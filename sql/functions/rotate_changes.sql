-- Makes the other table of changes the current one. Returns whether it did: not while a writer marks the log
-- as full (see lock_sequence), or that mark would be overwritten. One call: no relay freezes in the middle.
CREATE OR REPLACE FUNCTION notifier.rotate_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
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
