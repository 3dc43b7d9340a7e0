-- The sessions that hold the relay's lock, whose key is `lock_key`. `is_ours`: the session's role may write
-- the log. A prepared transaction of another role may hold it; then there is no pid.
CREATE OR REPLACE FUNCTION notifier.relay_holders(lock_key bigint) RETURNS TABLE(pid integer, is_ours boolean)
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.pid, coalesce(has_table_privilege(a.usesysid, 'notifier.log', 'UPDATE'), false)
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32) + l.objid::bigint = lock_key
      AND l.objsubid = 1 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;
