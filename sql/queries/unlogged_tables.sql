-- The watched tables that are UNLOGGED, or have such a partition: a crash of PostgreSQL empties them, and a standby has them
-- empty, without a trigger.
SELECT DISTINCT w.relation, part.oid::pg_catalog.regclass::text AS unlogged
FROM notifier.watches AS w
JOIN pg_catalog.pg_class AS part ON part.relpersistence = 'u' AND part.relkind = 'r' AND (
    part.oid = pg_catalog.to_regclass(w.relation)
    OR part.oid IN (SELECT tree.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(w.relation)) AS tree))
ORDER BY w.relation, unlogged
