-- The secret of the signatures; see `refuse_reading.sql`. The guard is in the column as well: of a join, the planner may
-- evaluate other conditions before a WHERE without columns.
CREATE VIEW notifier.signing_secret AS
SELECT
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN secret END AS secret
FROM notifier.signing_key
WHERE CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END
