-- Bytes of changes and messages together, and their limit. `altered`: the row of notifier.log is not the
-- version that the relay wrote.
SELECT notifier.log_bytes() AS bytes, max_log_bytes, log.saved_by::xid <> log.xmin AS altered
FROM notifier.configuration, notifier.log
