-- The tables $1 as paths need them, in that order: one JSON object each, as text, or null where there is no such table.
-- Types as in `path_type.sql`. `references`: the foreign keys of one column.
SELECT CASE WHEN c.oid IS NOT NULL THEN pg_catalog.json_build_object(
    'relation', pg_catalog.format('%I.%I', n.nspname, c.relname),
    'kind', c.relkind,
    'owner', pg_catalog.pg_get_userbyid(c.relowner),
    'types', (
        SELECT coalesce(pg_catalog.json_object_agg(a.attname, own.type), '{{}}')
        FROM pg_catalog.pg_attribute AS a
        CROSS JOIN LATERAL ({type}) AS own
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ),
    'unique', ARRAY(
        SELECT a.attname::text
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready AND i.indnkeyatts = 1
          AND i.indpred IS NULL AND i.indexprs IS NULL
        ORDER BY NOT i.indisprimary, a.attname
    ),
    'references', (
        SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'column', a.attname, 'relation', pg_catalog.format('%I.%I', fn.nspname, f.relname), 'key', fa.attname,
            'is_valid', k.convalidated) ORDER BY NOT k.convalidated, k.conname), '[]')
        FROM pg_catalog.pg_constraint AS k
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
        JOIN pg_catalog.pg_attribute AS fa ON fa.attrelid = k.confrelid AND fa.attnum = k.confkey[1]
        JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid
        JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
        WHERE k.conrelid = c.oid AND k.contype = 'f' AND pg_catalog.cardinality(k.conkey) = 1
    )
)::text END
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS given (name, n)
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(given.name))[1]
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace = n.oid AND c.relname = (pg_catalog.parse_ident(given.name))[2] AND c.relkind IN ('r', 'p')
ORDER BY given.n
