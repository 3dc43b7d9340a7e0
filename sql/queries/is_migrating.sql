-- Whether a session that holds the advisory lock $1 may be another `migrate`: of the current role, a superuser, or a
-- role that has the rights of the owner of the schema `notifier`. Any other role may hold the lock as well.
SELECT EXISTS (
    SELECT FROM pg_locks AS l
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    JOIN pg_roles AS r ON r.oid = a.usesysid
    LEFT JOIN pg_namespace AS n ON n.nspname = 'notifier'
    WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32) + l.objid::bigint = $1::bigint AND l.objsubid = 1 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (r.rolsuper OR r.rolname = current_user OR pg_has_role(r.oid, n.nspowner, 'USAGE'))
)
