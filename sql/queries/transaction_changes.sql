-- All changes of the transactions $1, oldest first.
SELECT id, xid::text::bigint, entity, old, new, partial, actor, at, traceparent
FROM notifier.changes
WHERE xid = ANY ($1::bigint[]::text[]::xid8[])
ORDER BY id
