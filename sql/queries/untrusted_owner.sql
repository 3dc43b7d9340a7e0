-- The role that owns the table `version`, and the first of the tables $1 on which it may not create triggers; no row
-- where it may on all, or the current role is that role or, without being a superuser, a member of it. It reads the
-- catalogue alone.
SELECT pg_catalog.pg_get_userbyid(v.relowner)::text AS owner, given.name AS relation
FROM pg_catalog.pg_class AS v
JOIN pg_catalog.pg_roles AS us ON us.rolname = current_user
CROSS JOIN pg_catalog.unnest($1::text[]) WITH ORDINALITY AS given (name, n)
WHERE v.oid = pg_catalog.to_regclass('notifier.version') AND v.relkind = 'r' AND v.relowner <> us.oid
  AND (us.rolsuper OR NOT pg_catalog.pg_has_role(v.relowner, 'USAGE'))
  AND NOT pg_catalog.has_table_privilege(v.relowner, pg_catalog.to_regclass(given.name)::oid, 'TRIGGER')
ORDER BY given.n
LIMIT 1
