-- The changes that are visible now and were not in the snapshot $1, oldest first, at most $2; with them
-- the snapshot of this very statement. Late commits are in $1's xip, everything else is above its xmax.
SELECT pg_current_snapshot()::text AS snapshot,
       c.id, c.xid::text::bigint, c.entity, c.operation::text, c.old, c.new, c.partial, c.actor, c.at
FROM (VALUES (true)) AS always
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT * FROM notifier.changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
        UNION ALL
        SELECT * FROM notifier.changes
        WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    ) AS fresh
    ORDER BY id
    LIMIT $2
) AS c ON true
ORDER BY c.id
