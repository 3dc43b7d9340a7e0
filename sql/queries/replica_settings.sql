-- The settings by which sessions begin with session_replication_role = replica, in which only triggers that are enabled
-- ALWAYS fire: of a role, of this database, or of all roles. No row where all of our triggers are enabled ALWAYS.
-- `general`: the setting is not that of one role alone, which may belong to a tool for replication.
SELECT s.setrole = 0 AS general, CASE WHEN s.setrole = 0 THEN 'every role' ELSE 'role ' || pg_catalog.pg_get_userbyid(s.setrole) END AS whose,
       CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ALTER ROLE ALL'
            WHEN s.setrole = 0 THEN pg_catalog.format('ALTER DATABASE %I', pg_catalog.current_database())
            ELSE pg_catalog.format('ALTER ROLE %I', pg_catalog.pg_get_userbyid(s.setrole))
                 || CASE WHEN s.setdatabase = 0 THEN '' ELSE pg_catalog.format(' IN DATABASE %I', pg_catalog.current_database()) END
       END || ' RESET session_replication_role' AS remedy
FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS setting
WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
  AND pg_catalog.lower(setting) = 'session_replication_role=replica'
  AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
              WHERE p.pronamespace = 'notifier'::pg_catalog.regnamespace AND t.tgenabled = 'O')
UNION ALL
SELECT true, 'every session', 'remove session_replication_role from the configuration of the server'
FROM pg_catalog.pg_settings
WHERE name = 'session_replication_role' AND reset_val = 'replica' AND source IN ('configuration file', 'command line')
ORDER BY whose
