-- The columns of relation $1 that a `state_where` may name, without the excluded ones ($2), as CREATE TABLE takes them.
SELECT pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(notifier.bounding_type(a.atttypid), -1))
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated <> 'v'  -- whose expression is evaluated when they are read
  AND a.attname <> ALL ($2::text[]) AND notifier.bounding_type(a.atttypid) IS NOT NULL
ORDER BY a.attnum
