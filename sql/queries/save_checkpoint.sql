-- Stores the relay's checkpoint. A row that others wrote stays marked as such (0) until an epoch begins. Returns a row,
-- or stores nothing where the log has another epoch than $8: it was made again, by `migrate`, or restored.
UPDATE notifier.log
SET seq = $1, cursor = $2, target = $3, upto = $4, slot = $5, slot_since = $6,
    unsettled = $7::bigint::text::xid8, saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END
WHERE epoch = $8
RETURNING epoch
