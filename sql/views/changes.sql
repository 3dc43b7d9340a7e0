-- Both tables of changes; `size`: the bytes of both images before compression. The role of `serve` may read images,
-- actors and traces here alone; see `refuse_reading.sql`. The guard is in each of them as well: of a join, the
-- planner may evaluate other conditions before a WHERE without columns.
CREATE VIEW notifier.changes AS
SELECT
    id, xid, entity,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN old END AS old,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN new END AS new,
    partial,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN actor END AS actor,
    at,
    CASE WHEN (SELECT CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END)
         THEN traceparent END AS traceparent,
    coalesce(octet_length(old::text), 0) + coalesce(octet_length(new::text), 0) AS size
FROM (SELECT * FROM notifier.changes_0 UNION ALL SELECT * FROM notifier.changes_1) AS change
WHERE CASE WHEN pg_catalog.current_setting('transaction_deferrable') = 'on' THEN true ELSE notifier.refuse_reading() END
