-- The messages with their texts. The role of `serve` may read these columns here alone; see `refuse_reading.sql`.
CREATE VIEW notifier.stored_messages AS
SELECT slot, seq, company, position, at, stored, body, revokes, cursor, views, traceparent
FROM notifier.messages
WHERE CASE WHEN pg_catalog.current_setting('transaction_read_only') = 'off' THEN true ELSE notifier.refuse_reading() END
