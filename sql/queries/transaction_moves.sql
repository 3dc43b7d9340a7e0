-- The changes of rows on paths in transaction $1: those with companies alone, and with them rows of a path that are
-- stored with their keys only. Each different one once, at most $2 of them; without images where these are large, as no id of a
-- company is.
SELECT DISTINCT change.entity, CASE WHEN change.size <= 8192 THEN change.old END AS old,
       CASE WHEN change.size <= 8192 THEN change.new END AS new
FROM (
    SELECT c.entity, c.size, c.old::text AS old, c.new::text AS new
    FROM notifier.changes AS c
    WHERE c.xid = $1::bigint::text::xid8 AND c.partial AND pg_catalog.starts_with(coalesce(c.old, c.new)::text, '{"->')
) AS change
LIMIT $2
