-- Empties a slot of messages and turns to it; its companies keep their positions, and the relay its place.
-- Returns since when the slot is written to; null: somebody reads its messages. One call: no node waits
-- for a relay that froze in the middle of it.
CREATE OR REPLACE FUNCTION notifier.prune(slot_next integer, read_so_far text, last_seq bigint)
RETURNS timestamp with time zone
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    since timestamptz;
BEGIN
    EXECUTE format('INSERT INTO notifier.positions AS p (company, position)
                    SELECT company, max(position) FROM notifier.messages_%s GROUP BY company
                    ON CONFLICT (company) DO UPDATE SET position = greatest(p.position, excluded.position)',
                   slot_next);
    EXECUTE format('TRUNCATE notifier.messages_%s', slot_next);
    UPDATE notifier.log
    SET slot = slot_next, slot_since = clock_timestamp(), cursor = read_so_far, seq = last_seq
    RETURNING slot_since INTO since;
    RETURN since;
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;
