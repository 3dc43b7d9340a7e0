-- Stores the relay's checkpoint.
UPDATE notifier.log
SET seq = $1, cursor = $2, target = $3, upto = $4, slot = $5, slot_since = $6,
    unsettled = $7::bigint::text::xid8
