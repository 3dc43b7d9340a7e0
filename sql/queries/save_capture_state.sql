-- Stores the state of the capture triggers that the relay has found. See save_checkpoint.sql for `saved_by`.
UPDATE notifier.log
SET captured = $1::jsonb,
    saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END
