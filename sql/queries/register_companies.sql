-- Adds companies to the log.
INSERT INTO notifier.positions (company) SELECT pg_catalog.unnest($1::text[]) ON CONFLICT DO NOTHING
