-- The room that the log takes: bytes of changes and messages together, and their limit; the last id of a
-- change; the bytes of both tables of changes. `altered`: the row of notifier.log is not the version that the
-- relay wrote.
SELECT notifier.log_bytes() AS bytes, configuration.max_log_bytes AS limit, change_ids.last_value AS last_id,
       pg_relation_size('notifier.changes_0') AS zero, pg_relation_size('notifier.changes_1') AS one,
       coalesce(log.saved_by::xid <> log.xmin, false) AS altered
FROM notifier.configuration, notifier.change_ids, notifier.log
