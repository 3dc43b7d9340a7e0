-- What `migrate` wrote down: the watches, and the scopes, the limit of the log and the watches whose table is a
-- pattern beside each. At least one row.
SELECT c.max_log_bytes, w.*,
       ARRAY(SELECT ARRAY[s.name, s.membership] FROM notifier.scopes AS s) AS scopes,
       ARRAY(SELECT p.watch::text FROM notifier.patterns AS p ORDER BY p.name) AS patterns
FROM notifier.configuration AS c LEFT JOIN notifier.watches AS w ON w.tenant IS NULL
