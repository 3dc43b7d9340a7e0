-- What stands in capture for :relations: the watched relations and those along paths, with a partition's root in its
-- place, and the composite types of their columns. A plan that holds an answer about them ends when one of them is
-- altered.
WITH RECURSIVE watched (oid) AS (
    SELECT coalesce(pg_catalog.pg_partition_root(r.oid), r.oid)::oid
    FROM (SELECT relation FROM notifier.watches UNION SELECT relation FROM notifier.steps) AS w
    -- not by `to_regclass`, which raises where the current role may not use the schema
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(w.relation))[1]
    JOIN pg_catalog.pg_class AS r ON r.relnamespace = n.oid AND r.relname = (pg_catalog.parse_ident(w.relation))[2]
), types (oid) AS (
    SELECT a.atttypid
    FROM watched JOIN pg_catalog.pg_attribute AS a ON a.attrelid = watched.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT part.oid
    FROM types JOIN pg_catalog.pg_type AS t ON t.oid = types.oid
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype WHEN t.typcategory = 'A' THEN t.typelem END
        UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
    WHERE t.oid >= :first_user_oid
), relations (oid) AS (
    SELECT oid FROM watched
    UNION
    SELECT t.typrelid FROM types JOIN pg_catalog.pg_type AS t ON t.oid = types.oid WHERE t.typrelid >= :first_user_oid
)
SELECT pg_catalog.format('ARRAY[%s]::regclass[]', pg_catalog.string_agg(
    pg_catalog.format('%L::regclass', oid), ', ' ORDER BY oid))
FROM relations
