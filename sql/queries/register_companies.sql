-- Adds companies to the log. Durably, although the database may commit asynchronously: a company that a crash makes unknown
-- again gets no Resync for a TRUNCATE, and its clients stay connected.
WITH durable AS MATERIALIZED (
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
)
INSERT INTO notifier.positions (company)
SELECT pg_catalog.unnest($1::text[]) FROM (SELECT pg_catalog.count(*) FROM durable) AS made
ON CONFLICT DO NOTHING
