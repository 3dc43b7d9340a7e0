-- Identifies cluster, timeline and database. A failover or a restored backup changes the result.
CREATE OR REPLACE FUNCTION notifier.system() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
           || '/' || d.oid
    FROM pg_control_system() AS s, pg_database AS d WHERE d.datname = current_database()
$$;
