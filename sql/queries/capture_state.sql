-- The capture triggers of each watched entity, and what the relay saved of them.
--
-- `triggers`: for each, by oid, its table and its version: with another version it was disabled, enabled or created
-- again, and its table may have been written to uncaptured. `root`: the watched table; `tables`: it, its partitions,
-- and the tables that its paths cross. `captured`: whether the watched table is captured now. `dropped`: its tenant's
-- schema is gone.
WITH RECURSIVE of_watch (entity, oid) AS (
    -- not by pg_partition_tree, which locks the partitions: the relay would wait for what holds a lock on one
    SELECT w.entity, notifier.relation_of(w.relation)::oid FROM notifier.watches AS w
    UNION ALL
    SELECT t.entity, i.inhrelid FROM of_watch AS t JOIN pg_inherits AS i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT w.entity, notifier.relation_of(w.relation)::oid::bigint AS root, tree.tables || crossed.tables AS tables,
       coalesce(t.triggers, '{}') AS triggers,
       coalesce(t.on_root >= 2 AND t.crossing >= 3 * cardinality(crossed.tables), false) AS captured,
       w.tenant IS NOT NULL AND to_regnamespace(quote_ident(w.tenant)) IS NULL AS dropped,
       (SELECT log.captured FROM notifier.log) AS saved
FROM notifier.watches AS w
JOIN (
    SELECT of_watch.entity, array_agg(of_watch.oid::bigint) AS tables FROM of_watch GROUP BY of_watch.entity
) AS tree ON tree.entity = w.entity
CROSS JOIN LATERAL (
    SELECT ARRAY(SELECT DISTINCT notifier.relation_of(s.relation)::oid::bigint FROM notifier.steps AS s
                 JOIN notifier.watches AS o ON o.entity = s.watch
                 WHERE o.captured_as = w.entity AND s.step > 0) AS tables
) AS crossed
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(t.oid, jsonb_build_array(t.tgrelid::bigint, t.xmin::text || t.tgenabled::text)) AS triggers,
           count(*) FILTER (WHERE t.tgrelid = notifier.relation_of(w.relation) AND t.tgenabled IN ('O', 'A')
                              AND t.tgfoid = 'notifier.capture'::regproc) AS on_root,
           count(*) FILTER (WHERE t.tgenabled IN ('O', 'A') AND t.tgfoid = 'notifier.capture_parent'::regproc) AS crossing
    FROM pg_trigger AS t
    WHERE t.tgrelid = ANY (tree.tables::oid[]) AND t.tgfoid = 'notifier.capture'::regproc
       OR t.tgrelid = ANY (crossed.tables::oid[]) AND t.tgfoid = 'notifier.capture_parent'::regproc
) AS t
WHERE w.entity = w.captured_as
