-- Elects this session as the relay, if no node relays: 'elected'; 'retry': soon; 'standby': another relays.
--
-- Any role may hold an advisory lock. So the lock's key is in a table of ours, and where a role without
-- rights on that table holds the lock, the key is replaced. The session that gets the lock reads the key
-- again under a row lock; the session that replaces the key looks for holders again under the same row lock. So a key
-- that a node has found valid is never replaced.
--
-- A relay whose backend has been idle for 10 s hangs: its connection is terminated, if this role may do that.
-- A backend that works, or waits for a lock, is not terminated.
CREATE OR REPLACE FUNCTION notifier.elect() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bigint;
    ended bigint;
BEGIN
    SELECT log.relay_lock INTO key FROM notifier.log;
    IF pg_try_advisory_lock(key) THEN
        PERFORM FROM notifier.log WHERE relay_lock = key FOR SHARE;
        IF FOUND THEN
            RETURN 'elected';
        END IF;
        PERFORM pg_advisory_unlock(key);
        RETURN 'retry';
    END IF;
    IF NOT EXISTS (SELECT FROM notifier.relay_holders(key) AS h WHERE h.is_ours) THEN
        PERFORM FROM notifier.log WHERE relay_lock = key FOR UPDATE;
        IF FOUND AND NOT EXISTS (SELECT FROM notifier.relay_holders(key) AS h WHERE h.is_ours) THEN
            UPDATE notifier.log
            SET relay_lock = ('x' || md5(gen_random_uuid()::text))::bit(62)::bigint,
                -- keeps the mark that others have altered the row
                saved_by = CASE WHEN saved_by::xid <> log.xmin THEN '0' ELSE pg_current_xact_id() END;
        END IF;
        RETURN 'retry';
    END IF;
    SELECT count(pg_terminate_backend(a.pid)) INTO ended
    FROM notifier.relay_holders(key) AS h JOIN pg_stat_activity AS a ON a.pid = h.pid
    WHERE h.is_ours AND a.usename = current_user AND (a.state LIKE 'idle%' OR a.wait_event_type = 'Client')
      AND a.state_change < clock_timestamp() - interval '10 s';
    RETURN CASE WHEN ended > 0 THEN 'retry' ELSE 'standby' END;
END
$$;
