-- Become the relay, if nobody is. A relay whose backend has said nothing for 10 s hangs: its connection
-- is ended, so that the next one to ask gets the lock. (Only backends of the same role can be.) It waits
-- for its client, in a transaction or not, to speak or to listen; one that works is let be.
SELECT pg_try_advisory_lock(:relay_lock) AS elected,
       (SELECT count(pg_terminate_backend(a.pid))
        FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE l.locktype = 'advisory' AND (l.classid::bigint << 32) + l.objid::bigint = :relay_lock
          AND l.objsubid = 1 AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND a.pid <> pg_backend_pid() AND a.usename = current_user AND (a.state LIKE 'idle%' OR a.wait_event_type = 'Client')
          AND a.state_change < clock_timestamp() - interval '10 s') AS ended
