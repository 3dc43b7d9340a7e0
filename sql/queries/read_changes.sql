-- The changes that are visible now and were not in snapshot $1, oldest first: at most $2 of them, and about
-- $3 bytes. With them the snapshot of this statement, the version of the catalogue (`catalogue_version.sql`), and the last id
-- that was given out.
-- Transactions that committed late are in $1's xip, all others are at or above its xmax.
SELECT always.snapshot, always.catalogue, always.last_id,
       c.id, c.xid::text::bigint AS xid, c.entity, c.old, c.new, c.partial, c.actor, c.at, c.traceparent,
       c.bytes
FROM (
    SELECT pg_current_snapshot()::text AS snapshot, notifier.catalogue_version() AS catalogue,
           (SELECT last_value FROM notifier.change_ids) AS last_id OFFSET 0
) AS always
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT *, sum(size) OVER (ORDER BY id) AS bytes FROM (
            SELECT * FROM (
                SELECT * FROM notifier.changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                UNION ALL
                SELECT * FROM notifier.changes
                WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
            ) AS fresh
            ORDER BY id
            LIMIT $2
        ) AS counted
    ) AS weighed
    WHERE bytes - size < $3
) AS c ON true
ORDER BY c.id
