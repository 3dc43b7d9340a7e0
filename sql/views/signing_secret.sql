-- The secret of the signatures; see `refuse_reading.sql`.
CREATE VIEW notifier.signing_secret AS
SELECT secret FROM notifier.signing_key
WHERE CASE WHEN pg_catalog.current_setting('transaction_read_only') = 'off' THEN true ELSE notifier.refuse_reading() END
