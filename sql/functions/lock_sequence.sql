-- Called by a writer that finds the log full: whether it may set the sequence of changes. The relay, which sets it in
-- `rotate_changes`, cannot do so until the writer's transaction ends. The lock is on a table of ours, since any role
-- could hold an advisory lock.
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
