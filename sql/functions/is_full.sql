-- Whether changes take more than their half of max_log_bytes; the other half is for messages.
CREATE OR REPLACE FUNCTION notifier.is_full() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT pg_total_relation_size('notifier.changes_0') + pg_total_relation_size('notifier.changes_1')
               > max_log_bytes / 2
        FROM notifier.configuration
    );
EXCEPTION WHEN lock_not_available THEN  -- a table is being truncated, and the lock_timeout of the session is short
    RETURN false;
END
$$;
