-- The watched tables that are UNLOGGED, or have such a partition: a crash of PostgreSQL empties them, and a standby has
-- them empty, without a trigger.
WITH RECURSIVE part (relation, oid) AS (
    -- not by pg_partition_tree, which waits for locks on the partitions
    SELECT w.relation, notifier.relation_of(w.relation)::pg_catalog.oid FROM notifier.watches AS w
    UNION
    SELECT p.relation, h.inhrelid
    FROM part AS p
    JOIN pg_catalog.pg_inherits AS h ON h.inhparent = p.oid
    JOIN pg_catalog.pg_class AS child ON child.oid = h.inhrelid AND child.relispartition
)
SELECT DISTINCT part.relation, c.oid::pg_catalog.regclass::text AS unlogged
FROM part JOIN pg_catalog.pg_class AS c ON c.oid = part.oid
WHERE c.relpersistence = 'u' AND c.relkind = 'r'
ORDER BY part.relation, unlogged
