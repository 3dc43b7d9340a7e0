-- As `read_changes.sql`, of the changes that were not in snapshot $1 only the last one, without its images and their sizes.
SELECT always.snapshot, always.catalogue, always.last_id, c.id, c.xid::text::bigint AS xid
FROM (
    SELECT pg_current_snapshot()::text AS snapshot, notifier.catalogue_version() AS catalogue,
           (SELECT last_value FROM notifier.change_ids) AS last_id OFFSET 0
) AS always
LEFT JOIN LATERAL (
    SELECT id, xid FROM (
        SELECT id, xid FROM notifier.changes WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
        UNION ALL
        SELECT id, xid FROM notifier.changes
        WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    ) AS fresh
    ORDER BY id DESC
    LIMIT 1
) AS c ON true
