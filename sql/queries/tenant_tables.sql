-- The tables of the names $1 in all schemas that an application may have, with their full, quoted names. `usable`: the
-- current role has USAGE on the schema.
SELECT n.nspname::text AS schema, c.relname::text AS table, pg_catalog.format('%I.%I', n.nspname, c.relname) AS relation,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relname = ANY ($1::text[])
  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'notifier')
ORDER BY 1, 2
