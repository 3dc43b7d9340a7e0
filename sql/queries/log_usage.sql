-- The room that the log takes: bytes of changes and messages together, and their limit; the last id of a
-- change; the bytes of the rows in both tables of changes, 0 for an empty one: large values are in its TOAST table.
-- `slot_*`: of the current slot of messages, its bytes, whether it holds any, and its age. `altered`: the row of
-- notifier.log is not the version that the relay wrote, or there are messages of a former epoch. `epoch`: that of the log.
-- `last_seq`: of the last message, or before the epoch's first. `slots`: how many partitions the messages have.
SELECT log.epoch, notifier.log_bytes() AS bytes, configuration.max_log_bytes AS limit, change_ids.last_value AS last_id,
       zero.bytes AS zero, one.bytes AS one,
       pg_total_relation_size(part.slot) AS slot_bytes, pg_relation_size(part.slot) > 0 AS slot_used,
       extract(epoch FROM clock_timestamp() - log.slot_since)::float8 AS slot_seconds,
       coalesce(log.saved_by::xid <> log.xmin, false)
           OR coalesce((SELECT min(m.seq) FROM notifier.messages AS m) <= log.epoch_seq, false) AS altered,
       coalesce((SELECT max(m.seq) FROM notifier.messages AS m), log.epoch_seq) AS last_seq,
       (SELECT count(*) FROM pg_inherits AS i WHERE i.inhparent = 'notifier.messages'::regclass) AS slots
FROM notifier.configuration, notifier.change_ids, notifier.log
CROSS JOIN LATERAL (SELECT format('notifier.messages_%s', log.slot)::regclass AS slot) AS part
CROSS JOIN LATERAL (
    SELECT pg_relation_size(oid) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0) AS bytes
    FROM pg_class WHERE oid = 'notifier.changes_0'::regclass
) AS zero
CROSS JOIN LATERAL (
    SELECT pg_relation_size(oid) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0) AS bytes
    FROM pg_class WHERE oid = 'notifier.changes_1'::regclass
) AS one
