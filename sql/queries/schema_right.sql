-- The present role, and whether it may use the schema `notifier`; null: there is none.
SELECT current_user::text AS role,
       (SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace AS n WHERE n.nspname = 'notifier') AS may
