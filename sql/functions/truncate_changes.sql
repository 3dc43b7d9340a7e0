-- Empties a table of changes, $1, unless an open transaction has written to it or it holds changes that the
-- snapshot $2 does not see. The relay's checkpoint, $2 and $3, is saved with it. Returns whether it is empty.
--
-- One call: writers need the table's size, and would wait for a relay that froze between the lock and the
-- end of its transaction. TRUNCATE locks the table's indexes and its TOAST table as well, for which it would wait with the table
-- locked: any role can lock a relation by its number (`nextval`).
CREATE OR REPLACE FUNCTION notifier.truncate_changes(which integer, read_so_far text, last_seq bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '10ms'
AS $$
DECLARE
    relation CONSTANT text := format('notifier.changes_%s', which);
    unread boolean;
BEGIN
    BEGIN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', relation);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    -- Each statement has a snapshot of its own: this one sees what was committed before the lock.
    EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE xid >= pg_snapshot_xmax($1))
                        OR EXISTS (SELECT FROM %1$s WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))',
                   relation)
    INTO unread USING read_so_far::pg_snapshot;
    IF unread THEN
        RETURN false;
    END IF;
    BEGIN
        EXECUTE format('TRUNCATE %s', relation);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    PERFORM set_config('lock_timeout', '0', true);
    -- Not within a block that handles exceptions: it would be a subtransaction, with an xmin of its own.
    -- `saved_by` keeps the mark that others have altered the row.
    UPDATE notifier.log SET cursor = read_so_far, seq = last_seq, saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END;
    RETURN true;
END
$$;
