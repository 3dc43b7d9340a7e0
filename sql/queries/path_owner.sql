-- The role that owns `path_company`, where it is not the schema's owner and could change the function.
SELECT r.rolname::text
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_roles AS r ON r.oid = p.proowner
WHERE n.nspname = 'notifier' AND p.proname = 'path_company'
  AND r.oid <> n.nspowner AND NOT r.rolsuper AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
