-- What `migrate` wrote down: the watches, and the limit of the log beside each. At least one row.
SELECT c.max_log_bytes, w.*
FROM notifier.configuration AS c LEFT JOIN notifier.watches AS w ON true
