-- The types of the columns of the tables $1, and those that they are made of: one JSON object each, as text.
WITH RECURSIVE made_of AS (
    SELECT a.atttypid AS oid
    FROM pg_catalog.unnest($1::text[]) AS given (name)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(given.name))[1]
    JOIN pg_catalog.pg_class AS r ON r.relnamespace = n.oid AND r.relname = (pg_catalog.parse_ident(given.name))[2]
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT part.oid
    FROM made_of
    JOIN pg_catalog.pg_type AS t ON t.oid = made_of.oid
    CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL
        SELECT t.typelem WHERE t.typtype = 'b' AND t.typcategory = 'A'
        UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS part (oid)
    WHERE part.oid <> 0
)
SELECT pg_catalog.json_build_object(
    'oid', t.oid::int8,
    'name', t.typname,
    'kind', t.typtype,
    'base', CASE WHEN t.typtype = 'd' THEN t.typbasetype::int8 END,
    'dimensions', t.typndims,
    -- int2vector and oidvector have elements too, but become strings
    'element', CASE WHEN t.typtype = 'b' AND t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem::int8 END,
    'labels', ARRAY(
        SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder
    ),
    'fields', pg_catalog.to_json(ARRAY(
        SELECT pg_catalog.json_build_object('name', a.attname, 'type', a.atttypid::int8, 'dimensions', a.attndims,
                                            'sql', pg_catalog.format_type(a.atttypid, a.atttypmod))
        FROM pg_catalog.pg_attribute AS a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
    )),
    -- row_to_json uses such a cast; capture makes it of types that belong to an extension alone
    'json_cast', t.oid >= :first_user_oid AND EXISTS (
        SELECT FROM pg_catalog.pg_cast AS c
        WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::pg_catalog.regtype AND c.castfunc <> 0
    ) AND EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e'
    )
)::text
FROM made_of
JOIN pg_catalog.pg_type AS t USING (oid)
ORDER BY t.oid
