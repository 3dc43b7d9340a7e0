-- The role that owns the table `version`, and the first of the tables $1 on which it may not create triggers; no row where
-- it may on all, or is the current role. It reads the catalogue alone.
SELECT pg_catalog.pg_get_userbyid(v.relowner)::text AS owner, given.name AS relation
FROM pg_catalog.pg_class AS v
CROSS JOIN pg_catalog.unnest($1::text[]) WITH ORDINALITY AS given (name, n)
WHERE v.oid = pg_catalog.to_regclass('notifier.version') AND v.relkind = 'r'
  AND pg_catalog.pg_get_userbyid(v.relowner) <> current_user
  AND NOT pg_catalog.has_table_privilege(v.relowner, pg_catalog.to_regclass(given.name)::oid, 'TRIGGER')
ORDER BY given.n
LIMIT 1
