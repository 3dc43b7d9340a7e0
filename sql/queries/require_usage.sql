-- Raises insufficient_privilege where the current role may not use the schema of the table $1; not where there is no such table.
SELECT pg_catalog.to_regclass($1::text)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = (pg_catalog.parse_ident($1::text))[1] AND c.relname = (pg_catalog.parse_ident($1::text))[2]
