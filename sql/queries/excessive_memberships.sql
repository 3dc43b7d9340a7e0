-- The roles that role $1 is a member of, directly or not, and that give it more than a node needs; none where it is a
-- superuser. `why`: what such a role may do, for a person. Code of the application that the planner runs as role $1 has
-- these rights.
SELECT r.rolname::text AS role,
       CASE WHEN r.rolsuper THEN 'is a superuser'
            WHEN owned.relation IS NOT NULL THEN 'owns ' || owned.relation
            WHEN ours.owner = r.oid THEN 'owns the schema ' || ours.name
            WHEN r.rolname ~ '_(files|program)$' THEN 'reaches files or programs of the server'
            ELSE 'has rights on all tables' END AS why
FROM pg_catalog.pg_roles AS us
CROSS JOIN pg_catalog.pg_roles AS r
LEFT JOIN LATERAL (
    SELECT min(w.relation) AS relation FROM notifier.watches AS w
    JOIN pg_catalog.pg_class AS c ON c.oid = notifier.relation_of(w.relation) AND c.relowner = r.oid
) AS owned ON true
CROSS JOIN (SELECT n.nspowner AS owner, n.nspname AS name FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'notifier') AS ours
WHERE us.rolname = $1 AND NOT us.rolsuper AND r.oid <> us.oid
  AND pg_catalog.pg_has_role(us.oid, r.oid, 'MEMBER')
  AND (r.rolsuper OR owned.relation IS NOT NULL OR ours.owner = r.oid
       OR r.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program', 'pg_read_server_files',
                        'pg_write_server_files', 'pg_maintain'))
ORDER BY role
