-- How far each transaction of $1 has come: `future` (no such number was given out yet), `running`, `unread` (the
-- relay has not stored the messages of its changes yet), or `stored`: the messages of its changes are stored, or it
-- has none, as after a rollback.
--
-- All is decided by the snapshot of this statement: what it sees as finished is followed by its changes and by the
-- checkpoint at the same moment. A TRUNCATE of changes that commits meanwhile is no exception: it happens only after
-- their messages were stored. They may then be too new for this statement, so company heads are read by a later one.
--
-- Changes that were dropped into a full log have no row. `dropped`: of transactions before this one they may have been, and
-- the Resync in their place is not stored yet. It comes before the cursor, which the relay may have moved past them.
--
-- pg_snapshot has only top-level transactions: the number of a subtransaction seems finished while it is running.
WITH checkpoint AS MATERIALIZED (  -- not once for each transaction
    SELECT coalesce((SELECT m.cursor FROM notifier.messages AS m
                     WHERE m.seq > log.seq AND m.cursor IS NOT NULL
                     ORDER BY m.seq DESC LIMIT 1), log.cursor)::pg_snapshot AS cursor,
           log.target::pg_snapshot AS target, log.upto,
           CASE WHEN ids.last_value >= :full_mark THEN '18446744073709551615'::xid8 ELSE log.unsettled END AS dropped
    FROM notifier.log, notifier.change_ids AS ids
)
SELECT tx::text::bigint AS tx,
       CASE WHEN NOT pg_visible_in_snapshot(tx, pg_current_snapshot())
            THEN CASE notifier.transaction_status(tx) WHEN 'future' THEN 'future' ELSE 'running' END
            WHEN tx < checkpoint.dropped AND notifier.transaction_status(tx) <> 'in progress' THEN 'unread'
            WHEN pg_visible_in_snapshot(tx, checkpoint.cursor) THEN 'stored'
            WHEN notifier.transaction_status(tx) = 'in progress' THEN 'running'
            WHEN EXISTS (
                SELECT FROM notifier.changes AS c
                WHERE c.xid = tx
                  -- while a backlog is read in pages, its first transactions are stored before the cursor moves
                  AND NOT (coalesce(pg_visible_in_snapshot(tx, checkpoint.target), false) AND c.id <= checkpoint.upto)
            ) THEN 'unread'
            ELSE 'stored' END AS state
FROM unnest($1::bigint[]::text[]::xid8[]) AS tx, checkpoint
