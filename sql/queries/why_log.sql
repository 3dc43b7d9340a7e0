-- The log, and what it holds of company $1. `head`: the company's last position; `pruned`: the last one whose message
-- is gone; `first`: the oldest message that is there. `oldest`: the body of the log's oldest message that names
-- its transaction.
-- `full`: capture has stopped storing. `waiting_since`: when the oldest change was made that the relay has not read.
WITH checkpoint AS (
    SELECT coalesce((SELECT m.cursor FROM notifier.messages AS m
                     WHERE m.seq > log.seq AND m.cursor IS NOT NULL
                     ORDER BY m.seq DESC LIMIT 1), log.cursor)::pg_snapshot AS cursor
    FROM notifier.log
)
SELECT log.epoch, log.target IS NOT NULL AS in_backlog,
       greatest(positions.position, last.position, 0) AS head,
       coalesce(first.position - 1, positions.position, 0) AS pruned, first.position AS first,
       (SELECT m.body FROM notifier.stored_messages AS m WHERE m.body::text LIKE '%"Tx":"%' ORDER BY m.seq LIMIT 1) AS oldest,
       (SELECT count(*) FROM notifier.relay_holders(log.relay_lock) AS h WHERE h.is_ours) AS relays,
       (SELECT last_value >= :full_mark FROM notifier.change_ids) AS full,
       (SELECT min(c.at) FROM notifier.changes AS c
        WHERE NOT pg_visible_in_snapshot(c.xid, checkpoint.cursor)) AS waiting_since
FROM notifier.log CROSS JOIN checkpoint
LEFT JOIN notifier.positions ON positions.company = $1
LEFT JOIN LATERAL (
    SELECT m.position FROM notifier.messages AS m WHERE m.company = $1 ORDER BY m.position DESC LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT m.position FROM notifier.messages AS m WHERE m.company = $1 ORDER BY m.position LIMIT 1
) AS first ON true
