-- What `migrate` wrote down: the watches, and the scopes and the limit of the log beside each. At least one row.
SELECT c.max_log_bytes, w.*,
       ARRAY(SELECT ARRAY[s.name, s.membership] FROM notifier.scopes AS s) AS scopes
FROM notifier.configuration AS c LEFT JOIN notifier.watches AS w ON true
