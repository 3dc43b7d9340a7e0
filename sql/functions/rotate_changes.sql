-- From now on changes go to the other table. Says whether it turned: not while capture says that the
-- log is full, or an overflow would go unsaid. One call: no relay freezes in the middle of it.
CREATE OR REPLACE FUNCTION notifier.rotate_changes() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(7815279003) THEN
        RETURN false;
    END IF;
    PERFORM setval('notifier.change_ids', ((last_value >> 32) + 1) << 32)
    FROM notifier.change_ids WHERE last_value < 4611686018427387904;
    RETURN FOUND;
END
$$;
