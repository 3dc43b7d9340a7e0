-- The columns of table $1 that $2 names: quoted, with the type where it is one of PostgreSQL's own, otherwise null. A
-- view or foreign table in place of a table has none: it would run its code as our role.
SELECT a.attname::text AS name, quote_ident(a.attname) AS quoted,
       CASE WHEN t.typtype = 'b' AND t.typelem = 0 AND t.typnamespace = 'pg_catalog'::regnamespace
            THEN format_type(t.oid, -1) END AS type
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
WHERE a.attrelid = notifier.relation_of($1) AND a.attname = ANY ($2::text[]) AND a.attnum > 0 AND NOT a.attisdropped
