-- Gives the log of a copied database an epoch of its own.
UPDATE notifier.log
SET system = notifier.system(), epoch = substr(md5(gen_random_uuid()::text), 1, 12),
    saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END
RETURNING epoch
