-- The transactions of a backlog: visible in snapshot $2 and not in $1, in the order of their last change,
-- from those after id $3 on, at most $4 of them. (A transaction that waited for a row lock has the greater last id.)
SELECT xid::text::bigint, max(id) AS last, count(*) AS changes, sum(size) AS bytes, max(size) AS largest
FROM (
    SELECT xid, id, size FROM notifier.changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
    UNION ALL
    SELECT xid, id, size FROM notifier.changes
    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
) AS fresh
WHERE pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
GROUP BY xid
HAVING max(id) > $3
ORDER BY last
LIMIT $4
