-- The changes of rows on paths in transaction $1: those with companies alone, and with them rows of a path that are
-- stored with their keys only. Each different one once.
SELECT DISTINCT c.entity, c.old::text AS old, c.new::text AS new
FROM notifier.changes AS c
WHERE c.xid = $1::bigint::text::xid8 AND c.partial AND pg_catalog.starts_with(coalesce(c.old, c.new)::text, '{"->')
