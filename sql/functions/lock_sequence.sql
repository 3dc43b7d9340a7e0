-- Whether the writer that finds the log full may set the sequence of changes; it holds off the relay, which
-- sets it in `rotate_changes`, until its transaction ends. A lock on a table of ours, not an advisory one,
-- which any role could hold.
CREATE OR REPLACE FUNCTION notifier.lock_sequence() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE notifier.log IN ROW SHARE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
