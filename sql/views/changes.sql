-- Both tables of changes; `size`: the bytes of both images before compression. The role of `serve` may read the images here
-- alone; see `refuse_reading.sql`.
CREATE VIEW notifier.changes AS
SELECT *, coalesce(octet_length(old::text), 0) + coalesce(octet_length(new::text), 0) AS size
FROM (SELECT * FROM notifier.changes_0 UNION ALL SELECT * FROM notifier.changes_1) AS change
WHERE CASE WHEN pg_catalog.current_setting('transaction_read_only') = 'off' THEN true ELSE notifier.refuse_reading() END
