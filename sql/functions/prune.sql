-- Empties a slot of messages and makes it the current one; its companies keep their positions, and the relay
-- its checkpoint. Returns the time since when the slot is current; null: its messages are being read. One
-- call: no node waits for a relay that froze in the middle of it.
--
-- A backup reads them for hours, and the relay tries again every second. So TRUNCATE is tried first, and rolled back: to
-- write the positions of all companies each time would leave as many dead rows. It also needs locks on the indexes, see truncate_changes.
CREATE OR REPLACE FUNCTION notifier.prune(slot_next integer, read_so_far text, last_seq bigint)
RETURNS timestamp with time zone
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    since timestamptz;
BEGIN
    BEGIN
        EXECUTE format('TRUNCATE notifier.messages_%s', slot_next);
        RAISE EXCEPTION 'released';
    EXCEPTION
        WHEN lock_not_available THEN RETURN NULL;
        WHEN raise_exception THEN NULL;
    END;
    BEGIN
        EXECUTE format('INSERT INTO notifier.positions AS p (company, position)
                        SELECT company, max(position) FROM notifier.messages WHERE slot = %s GROUP BY company
                        ON CONFLICT (company) DO UPDATE SET position = greatest(p.position, excluded.position)',
                       slot_next);
        EXECUTE format('TRUNCATE notifier.messages_%s', slot_next);
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    -- Not within the block above: that is a subtransaction, with an xmin of its own.
    UPDATE notifier.log
    SET slot = slot_next, slot_since = clock_timestamp(), cursor = read_so_far, seq = last_seq,
        saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END
    RETURNING slot_since INTO since;
    RETURN since;
END
$$;
