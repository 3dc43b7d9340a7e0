-- The messages with their texts. The role of `serve` may read these columns here alone; see `refuse_reading.sql`. The
-- guard is in each of them as well: of a join, the planner may evaluate other conditions before a WHERE without
-- columns. `writer`: the transaction that stored it, without its epoch; a right on columns does not give that one.
CREATE VIEW notifier.stored_messages AS
SELECT
    slot, seq, company, position, at, stored,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN body END AS body,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN revokes END AS revokes,
    cursor,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN views END AS views,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN traceparent END AS traceparent,
    xmin::text::bigint AS writer
FROM notifier.messages
WHERE CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END
