-- Whether the relay has stored the messages of every change that the snapshot $1 sees. `target` is there while it
-- reads a backlog.
SELECT log.target IS NULL AND NOT EXISTS (
    SELECT FROM notifier.changes AS c
    WHERE pg_visible_in_snapshot(c.xid, $1::text::pg_snapshot)
      AND NOT pg_visible_in_snapshot(c.xid, coalesce(newest.cursor, log.cursor)::pg_snapshot)
)
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT m.cursor FROM notifier.messages AS m
    WHERE m.seq > log.seq AND m.cursor IS NOT NULL ORDER BY m.seq DESC LIMIT 1
) AS newest ON true
