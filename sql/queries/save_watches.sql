-- Saves the watches $1, a JSON array of rows.
INSERT INTO notifier.watches
SELECT * FROM pg_catalog.json_populate_recordset(NULL::notifier.watches, $1::text::json)
