-- Sets the settings $1, and all that choose plans, back to PostgreSQL's own defaults where the role, the
-- database or the server's configuration has others. What came with the connection stays.
--
-- False, and nothing is set, where that has not arrived: a transaction pooler dropped it, and what is set
-- now would be inherited by other clients.
WITH arrived AS MATERIALIZED (
    SELECT source = 'client' AS ours
    FROM pg_catalog.pg_settings WHERE name = 'idle_in_transaction_session_timeout'
)
SELECT ours, (
    SELECT pg_catalog.count(pg_catalog.set_config(s.name, s.boot_val, false))
    FROM pg_catalog.pg_settings AS s
    WHERE ours AND s.context = 'user' AND s.source <> 'client' AND s.setting <> s.boot_val
      AND (s.name = ANY ($1::text[]) OR s.name ~ '^(enable_|debug_|geqo|force_parallel_mode$)')
)
FROM arrived
