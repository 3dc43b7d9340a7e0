-- Whether changes wait for more than their half of max_log_bytes; the relay keeps messages to the other.
CREATE OR REPLACE FUNCTION notifier.is_full() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_total_relation_size('notifier.changes_0') + pg_total_relation_size('notifier.changes_1')
           > max_log_bytes / 2
    FROM notifier.configuration
$$;
