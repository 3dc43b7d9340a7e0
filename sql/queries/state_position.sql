-- The current end of the log for company $1, and `unread`: the transactions of which the rows are visible now but
-- the messages are not stored yet. The two conditions on xid are those of `read_changes.sql`, which the indexes have.
WITH checkpoint AS (
    SELECT coalesce((SELECT m.cursor FROM notifier.messages AS m
                     WHERE m.seq > log.seq AND m.cursor IS NOT NULL
                     ORDER BY m.seq DESC LIMIT 1), log.cursor)::pg_snapshot AS cursor,
           log.target::pg_snapshot AS target, log.upto, log.epoch
    FROM notifier.log
), captured AS NOT MATERIALIZED (  -- the view `changes` is not readable here
    SELECT id, xid FROM notifier.changes_0 UNION ALL SELECT id, xid FROM notifier.changes_1
)
SELECT checkpoint.epoch,
       greatest((SELECT position FROM notifier.positions WHERE company = $1),
                (SELECT max(position) FROM notifier.messages WHERE company = $1), 0) AS position,
       ARRAY(
           SELECT DISTINCT c.xid::text::bigint FROM (
               SELECT id, xid FROM captured WHERE xid >= pg_snapshot_xmax(checkpoint.cursor)
               UNION ALL
               SELECT id, xid FROM captured WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(checkpoint.cursor)))
           ) AS c
           -- while a backlog is read in pages, its first transactions are stored before the cursor moves
           WHERE NOT (coalesce(pg_visible_in_snapshot(c.xid, checkpoint.target), false) AND c.id <= checkpoint.upto)
       ) AS unread
FROM checkpoint
