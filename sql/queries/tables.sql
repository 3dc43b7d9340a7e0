-- The tables $1 as the catalogue has them, in that order: one JSON object each, as text,
-- or null where there is no such table.
SELECT CASE WHEN c.oid IS NOT NULL THEN pg_catalog.json_build_object(
    'relation', pg_catalog.format('%I.%I', n.nspname, c.relname),
    'kind', c.relkind,
    'columns', ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    ),
    -- generated when they are read: no trigger sees a value in them
    'virtual', ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attgenerated = 'v' ORDER BY a.attnum
    ),
    -- whose `false` and `null` look in a row's image like those of a boolean
    'json', ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0
          AND t.typoutput IN ('pg_catalog.json_out'::pg_catalog.regproc, 'pg_catalog.jsonb_out'::pg_catalog.regproc)
    ),
    'nullable', ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attnotnull
        ORDER BY a.attnum
    ),
    -- the columns of each unique index; a deferred one holds by the end of the transaction, which is enough
    'unique', pg_catalog.to_json(ARRAY(
        SELECT pg_catalog.array_to_json(ARRAY(
            SELECT a.attname::text
            FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE k.n <= i.indnkeyatts
        ))
        FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready
          AND i.indpred IS NULL AND i.indexprs IS NULL
    )),
    -- by which it and its partitions are partitioned: a unique index cannot leave them out
    'partitioned_by', ARRAY(
        -- not by pg_partition_tree, which waits for locks on the partitions
        WITH RECURSIVE part AS (
            SELECT c.oid AS relid
            UNION ALL
            SELECT h.inhrelid FROM part JOIN pg_catalog.pg_inherits AS h ON h.inhparent = part.relid
        )
        SELECT DISTINCT a.attname::text
        FROM part
        JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = part.relid
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs)
        WHERE a.attnum > 0
    ),
    'children', ARRAY(
        WITH RECURSIVE descendant AS (
            SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid
            UNION
            SELECT h.inhrelid FROM descendant JOIN pg_catalog.pg_inherits AS h ON h.inhparent = descendant.inhrelid
        )
        SELECT pg_catalog.format('%I.%I', s.nspname, d.relname)
        FROM descendant
        JOIN pg_catalog.pg_class AS d ON d.oid = descendant.inhrelid AND NOT d.relispartition
        JOIN pg_catalog.pg_namespace AS s ON s.oid = d.relnamespace
        ORDER BY 1
    )
)::text END
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS given (name, n)
-- not by `to_regclass`, which raises where the current role may not use the schema
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(given.name))[1]
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace = n.oid AND c.relname = (pg_catalog.parse_ident(given.name))[2] AND c.relkind IN ('r', 'p')
ORDER BY given.n
