-- Bytes on disk of changes and messages together, indexes and TOAST included.
CREATE OR REPLACE FUNCTION notifier.log_bytes() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sum(pg_total_relation_size(relation))::bigint
    FROM unnest('{notifier.changes_0, notifier.changes_1,
                  notifier.messages_0, notifier.messages_1, notifier.messages_2, notifier.messages_3,
                  notifier.messages_4, notifier.messages_5, notifier.messages_6, notifier.messages_7
                 }'::regclass[]) AS relation
$$;
