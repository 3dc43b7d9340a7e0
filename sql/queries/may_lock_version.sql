-- Whether the current role may lock the table `version`, if there is one. A role that may not cannot change anything
-- of ours.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'notifier' AND c.relname = 'version' AND c.relkind = 'r'
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
)
