-- The room that the log takes: bytes of changes and messages together, and their limit; the last id of a
-- change; the bytes of both tables of changes. `slot_…`: of the current slot of messages, its bytes, whether it holds
-- any, and its age. `altered`: the row of notifier.log is not the version that the relay wrote.
SELECT notifier.log_bytes() AS bytes, configuration.max_log_bytes AS limit, change_ids.last_value AS last_id,
       pg_relation_size('notifier.changes_0') AS zero, pg_relation_size('notifier.changes_1') AS one,
       pg_total_relation_size(part.slot) AS slot_bytes, pg_relation_size(part.slot) > 0 AS slot_used,
       extract(epoch FROM clock_timestamp() - log.slot_since)::float8 AS slot_seconds,
       coalesce(log.saved_by::xid <> log.xmin, false) AS altered
FROM notifier.configuration, notifier.change_ids, notifier.log,
     LATERAL (SELECT format('notifier.messages_%s', log.slot)::regclass AS slot) AS part
