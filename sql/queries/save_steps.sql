-- Saves the steps $1 of paths, a JSON array of rows.
INSERT INTO notifier.steps
SELECT * FROM pg_catalog.json_populate_recordset(NULL::notifier.steps, $1::text::json)
