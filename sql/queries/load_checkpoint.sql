-- The relay's checkpoint: the row of notifier.log, or the cursor of the last message where that is newer.
-- `altered`: the row is not the version that a relay wrote, but was restored, replicated or edited; or the last two messages with
-- a cursor are of one transaction, which no relay writes: they were restored, and the row was there before.
-- `ahead`: the cursor is ahead of this server.
SELECT log.epoch, log.system, log.slot, log.slot_since, log.target, log.upto, log.epoch_seq,
       notifier.system() AS now_system,
       greatest(log.seq, newest.seq, (SELECT max(seq) FROM notifier.messages)) AS seq,
       coalesce(newest.cursor, log.cursor) AS cursor,
       coalesce(log.saved_by::xid <> log.xmin, false) OR coalesce((
           SELECT count(*) > count(DISTINCT last.writer) FROM (
               SELECT writer FROM notifier.stored_messages WHERE cursor IS NOT NULL ORDER BY seq DESC LIMIT 2
           ) AS last), false) AS altered,
       pg_snapshot_xmax(coalesce(newest.cursor, log.cursor)::pg_snapshot)
           > pg_snapshot_xmax(pg_current_snapshot()) AS ahead,
       log.unsettled::text::bigint AS unsettled
FROM notifier.log
LEFT JOIN LATERAL (
    SELECT seq, cursor FROM notifier.messages
    WHERE messages.seq > log.seq AND messages.cursor IS NOT NULL
    ORDER BY seq DESC LIMIT 1
) AS newest ON true
