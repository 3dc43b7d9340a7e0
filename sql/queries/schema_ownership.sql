-- Of the schema `notifier`, if there is one: its owner, the role that should own it, and whether the current role may
-- change that. It should be the owner of the table `version`, and the current role where there is none yet.
SELECT o.rolname::text AS owner, w.rolname::text AS wanted,
       pg_catalog.pg_has_role(o.oid, 'USAGE') AND pg_catalog.pg_has_role(w.oid, 'USAGE')
           AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_change
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_roles AS o ON o.oid = n.nspowner
LEFT JOIN pg_catalog.pg_class AS v ON v.oid = pg_catalog.to_regclass('notifier.version')
JOIN pg_catalog.pg_roles AS w ON CASE WHEN v.oid IS NULL THEN w.rolname = current_user ELSE w.oid = v.relowner END
WHERE n.nspname = 'notifier'
