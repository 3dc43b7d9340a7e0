-- The role that the database's settings give this session, where the role that logged in is an administrator: the
-- database's owner can set it, and would own what the session creates, with triggers that RESET ROLE. No row where ALTER
-- ROLE sets one, as an administrator may.
SELECT session_user::text AS administrator, current_user::text AS role, pg_catalog.current_database() AS database
FROM pg_catalog.pg_roles AS us, pg_catalog.pg_database AS d
WHERE us.rolname = session_user AND (us.rolsuper OR us.rolcreaterole) AND current_user <> session_user
  AND d.datname = pg_catalog.current_database()
  AND EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS setting
              WHERE s.setrole = 0 AND s.setdatabase = d.oid AND setting = 'role=' || current_user)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS setting
                  WHERE s.setrole = us.oid AND s.setdatabase IN (0, d.oid) AND setting LIKE 'role=%')
