-- Whether role $1, which is to own a function of ours, is not the schema's owner and could change it.
SELECT n.nspowner <> r.oid AND NOT r.rolsuper
   AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
FROM pg_catalog.pg_roles AS r, pg_catalog.pg_namespace AS n
WHERE r.rolname = $1 AND n.nspname = 'notifier'
