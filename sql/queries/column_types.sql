-- The columns of the tables $1 (full, quoted names), in that order: one JSON array each, as text.
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', a.attname,
    'type', a.atttypid::int8,
    'sql', pg_catalog.format_type(a.atttypid, a.atttypmod),
    'dimensions', a.attndims,
    -- a constraint that is not validated yet (PostgreSQL 18) proves nothing about the rows that were there before
    'not_null', a.attnotnull AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS k
        WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated
    )
) ORDER BY a.attnum), '[]')::text
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS given (name, n)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(given.name))[1]
JOIN pg_catalog.pg_class AS r ON r.relnamespace = n.oid AND r.relname = (pg_catalog.parse_ident(given.name))[2]
JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated <> 'v'  -- a virtual column: no trigger sees a value in it
GROUP BY given.n
ORDER BY given.n
