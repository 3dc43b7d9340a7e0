-- Whether the current role may lock rows of pg_namespace, as superusers may.
SELECT pg_catalog.has_table_privilege('pg_catalog.pg_namespace', 'UPDATE')
