-- What stands in capture for :relations: the watched relations and those along paths, with a partition's root in its place, and the
-- composite types of their columns. A plan that holds an answer about them ends when one of them is altered.
WITH RECURSIVE relations (oid) AS (
    SELECT coalesce(pg_catalog.pg_partition_root(r.oid), r.oid)::oid
    FROM (SELECT relation FROM notifier.watches UNION SELECT relation FROM notifier.steps) AS w
    CROSS JOIN LATERAL pg_catalog.to_regclass(w.relation) AS r (oid)
    WHERE r.oid IS NOT NULL
    UNION
    SELECT element.typrelid
    FROM relations AS r
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS own ON own.oid = a.atttypid
    JOIN pg_catalog.pg_type AS base ON base.oid = CASE own.typtype WHEN 'd' THEN own.typbasetype ELSE own.oid END
    JOIN pg_catalog.pg_type AS element ON element.oid = CASE base.typcategory WHEN 'A' THEN base.typelem ELSE base.oid END
    WHERE element.typrelid >= :first_user_oid
)
SELECT pg_catalog.format('ARRAY[%s]::regclass[]', pg_catalog.string_agg(
    pg_catalog.format('%L::regclass', oid), ', ' ORDER BY oid))
FROM relations
