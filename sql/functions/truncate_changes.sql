-- Empties a table of changes, $1, unless a transaction in flight has written to it or it holds what the
-- snapshot $2 does not see; the relay's place, $2 and $3, is kept with it. Says whether it is empty.
--
-- One call: the app's writers ask for the table's size, and would wait for a relay that froze between
-- the lock and the end of its transaction.
CREATE OR REPLACE FUNCTION notifier.truncate_changes(which integer, read_so_far text, last_seq bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT text := format('notifier.changes_%s', which);
    unread boolean;
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', relation);
    -- Each statement has a snapshot of its own: this one sees what was committed before the lock.
    EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE xid >= pg_snapshot_xmax($1))
                        OR EXISTS (SELECT FROM %1$s WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))',
                   relation)
    INTO unread USING read_so_far::pg_snapshot;
    IF unread THEN
        RETURN false;
    END IF;
    UPDATE notifier.log SET cursor = read_so_far, seq = last_seq;
    EXECUTE format('TRUNCATE %s', relation);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
