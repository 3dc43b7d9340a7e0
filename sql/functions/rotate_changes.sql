-- From now on changes go to the other table. Says whether it turned: not while capture says that the
-- log is full, or an overflow would go unsaid. One call: no relay freezes in the middle of it.
CREATE OR REPLACE FUNCTION notifier.rotate_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(:sequence_lock) THEN
        RETURN false;
    END IF;
    PERFORM setval('notifier.change_ids', ((last_value >> :table_bit) + 1) << :table_bit)
    FROM notifier.change_ids WHERE last_value < :full_mark;
    RETURN FOUND;
END
$$;
