-- A row with a path, or on one, in transaction $1: with the transaction's snapshot, if that has one for all its
-- statements.
SELECT coalesce(c.new, c.old)::text FROM notifier.changes AS c
WHERE c.xid = $1::bigint::text::xid8 AND pg_catalog.starts_with(coalesce(c.new, c.old)::text, '{"->')
LIMIT 1
