-- The tables whose rows name members, with the types of the columns that decide; of a domain, the type below it.
-- A type that is not PostgreSQL's own is null: its casts and operators may be application code.
-- A view or foreign table in place of a table is not read: it would run its code as our role.
-- At least one row, for the scopes; `watched` is null in it where no table names members.
-- Rows of a table that inherits from another are not captured, so they give no access either.
-- `tenant`: with the tables of this one. `tenants`: all that have tables of their own. `there`: the table is there. One of a tenant
-- has our trigger, which `migrate` has made: where the schema was dropped, any role may have made another one of its name.
WITH RECURSIVE base (domain, oid, level) AS (
    SELECT t.oid, t.oid, 0 FROM pg_catalog.pg_type AS t
    WHERE t.oid IN (
        SELECT a.atttypid FROM notifier.watches AS w
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = notifier.relation_of(w.relation)
         AND (a.attname IN (w.company, w.member, w.deleted_if) OR a.attname = ANY (w.member_if))
        WHERE w.tenant IS NULL OR w.tenant = {tenant}
        UNION ALL
        SELECT a.atttypid FROM notifier.steps AS s
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = notifier.relation_of(s.relation) AND a.attname = s.value)
    UNION ALL
    SELECT b.domain, t.typbasetype, b.level + 1
    FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype = 'd'
),
types (oid, name) AS (
    SELECT DISTINCT ON (b.domain) b.domain,
           CASE WHEN t.typtype = 'b' AND t.typelem = 0 AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
                THEN pg_catalog.format_type(t.oid, -1) END
    FROM base AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid
    ORDER BY b.domain, b.level DESC
)
SELECT w.relation AS watched, w.scope, w.tenant, kinds.scopes, kinds.tenants,
       r.oid IS NOT NULL AND (w.tenant IS NULL OR EXISTS (
           SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = r.oid AND t.tgfoid = 'notifier.capture'::pg_catalog.regproc
       )) AS there,
       CASE r.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || w.relation AS relation,
       coalesce(path.company, 'member.' || pg_catalog.quote_ident(w.company)) AS company, path.joins,
       pg_catalog.quote_ident(w.member) AS member,
       ct.name AS company_type, mt.name AS member_type,
       conditions.list AS conditions,
       w.path IS NULL AND EXISTS (
           SELECT FROM pg_catalog.pg_index AS i
           WHERE i.indrelid = r.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
             AND i.indnatts = 2 AND c.attnum = ANY (i.indkey) AND m.attnum = ANY (i.indkey)
       ) AS unique,
       r.relkind IN ('r', 'p') AND (c.attnum IS NOT NULL OR w.tenant IS NOT NULL) AND m.attnum IS NOT NULL
           AND conditions.present AND (w.path IS NULL OR path.present) AS present,
       ({signature}) AS signature
FROM (SELECT) AS one LEFT JOIN notifier.watches AS w
       ON w.member <> '' AND (w.tenant IS NULL OR w.tenant = {tenant})
LEFT JOIN pg_catalog.pg_class AS r ON r.oid = notifier.relation_of(w.relation)
-- `path_joins.sql`
LEFT JOIN LATERAL (
    {path}
) AS path ON true
LEFT JOIN pg_catalog.pg_attribute AS c
       ON c.attrelid = coalesce(path.last, r.oid) AND c.attname = coalesce(path.value, w.company) AND NOT c.attisdropped
LEFT JOIN pg_catalog.pg_attribute AS m
       ON m.attrelid = r.oid AND m.attname = w.member AND NOT m.attisdropped
LEFT JOIN types AS ct ON ct.oid = c.atttypid
LEFT JOIN types AS mt ON mt.oid = m.atttypid
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
               'column', pg_catalog.quote_ident(given.name), 'type', t.name, 'value', given.value::json)), '[]')::text AS list,
           coalesce(pg_catalog.bool_and(a.attnum IS NOT NULL), true) AS present
    FROM (
        SELECT w.member_if[i][1], w.member_if[i][2] FROM pg_catalog.generate_subscripts(w.member_if, 1) AS i
        UNION ALL SELECT w.deleted_if, 'false' WHERE w.deleted_if IS NOT NULL
    ) AS given (name, value)
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attname = given.name AND NOT a.attisdropped
    LEFT JOIN types AS t ON t.oid = a.atttypid
) AS conditions
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.json_object_agg(s.name, s.membership), '{{}}')::text AS scopes,
           ARRAY(SELECT DISTINCT t.tenant FROM notifier.watches AS t WHERE t.member <> '' AND t.tenant IS NOT NULL) AS tenants
    FROM notifier.scopes AS s
) AS kinds
ORDER BY w.entity
