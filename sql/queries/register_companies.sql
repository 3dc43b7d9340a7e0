-- The log knows these companies from now on.
INSERT INTO notifier.positions (company) SELECT pg_catalog.unnest($1::text[]) ON CONFLICT DO NOTHING
