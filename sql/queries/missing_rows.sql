-- The rows that each of our tables of one row needs, where a restore has left them out: the relay begins an epoch.
WITH log AS (
    INSERT INTO notifier.log (epoch, system, cursor, saved_by)
    SELECT pg_catalog.substr(pg_catalog.md5(pg_catalog.gen_random_uuid()::text), 1, 12), '', pg_catalog.pg_current_snapshot(), '0'
    WHERE NOT EXISTS (SELECT FROM notifier.log) RETURNING 'log' AS name
), configuration AS (
    INSERT INTO notifier.configuration (max_log_bytes) SELECT 1073741824
    WHERE NOT EXISTS (SELECT FROM notifier.configuration) RETURNING 'configuration' AS name
), moves AS (
    INSERT INTO notifier.moves (only_row) SELECT true WHERE NOT EXISTS (SELECT FROM notifier.moves) RETURNING 'moves' AS name
)
SELECT 'row of ' || name AS name FROM (TABLE log UNION ALL TABLE configuration UNION ALL TABLE moves) AS made
