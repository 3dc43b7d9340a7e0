-- How each watched table's rows are read as images, as capture makes them: `columns` are expressions of the row `t`,
-- without the excluded columns. `complete`: the table and the columns that the watch names are there. `company_type`:
-- null where it is not PostgreSQL's own. `hidden`: row-level security applies to the current role. `has_owners`: all
-- tables together have several. `scopes`: the names of all. `bounded`: no column that `state_where` could name has a
-- type of the application's. `mark`: the column of `deleted_if`; null for JSON, whose null and false are values, and
-- where the image has no such column. `mark_type`: null where it is not PostgreSQL's own. Where the company is at the
-- end of a path, `joins` leads to it, and it is a column of the image as in capture's. `oid`, `numbers`, `names`: the table and its columns,
-- which are compared with those that a statement finds (`state_columns.sql`).
WITH RECURSIVE base (domain, oid, level) AS (
    SELECT t.oid, t.oid, 0 FROM pg_catalog.pg_type AS t
    WHERE t.oid IN (
        SELECT a.atttypid FROM notifier.watches AS w
        JOIN pg_catalog.pg_attribute AS a
          ON a.attrelid = notifier.relation_of(w.relation) AND a.attname IN (w.company, w.deleted_if)
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
SELECT w.entity, ARRAY(SELECT s.name FROM notifier.scopes AS s) AS scopes, owners.has_owners, r.oid AS oid,
       ARRAY(SELECT a.attnum::int FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS numbers,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS names,
       CASE r.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || w.relation AS relation,
       (
           SELECT pg_catalog.string_agg(
               pg_catalog.format('%s AS %I', notifier.json_expression(pg_catalog.format('t.%I', a.attname), a.atttypid), a.attname),
               ', ' ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
             AND a.attname <> ALL (w.exclude)
       ) || CASE WHEN w.path IS NULL THEN '' WHEN c.attnum IS NOT NULL
            THEN pg_catalog.format(', %s AS %I', notifier.json_expression(path.company, c.atttypid), w.company) END AS columns,
       coalesce(path.joins, '') AS joins,
       r.oid IS NOT NULL AND (w.tenant IS NOT NULL OR c.attnum IS NOT NULL) AND (
           SELECT pg_catalog.bool_and(EXISTS (
               SELECT FROM pg_catalog.pg_attribute AS a
               WHERE a.attrelid = r.oid AND a.attname = needed.name AND NOT a.attisdropped))
           FROM pg_catalog.unnest(w.exclude || CASE WHEN w.path IS NULL THEN w.company END || w.key) AS needed (name)
           WHERE needed.name IS NOT NULL
       ) AND (w.path IS NULL OR path.present) AND NOT EXISTS (
           SELECT FROM notifier.renamed_columns() AS n
           WHERE n.relation = r.oid AND (n.name = ANY (w.visible_to) OR n.now IS NOT NULL AND n.name = ANY (w.exclude))
       ) AS complete,
       coalesce(path.company, 't.' || pg_catalog.quote_ident(w.company)) AS company, types.name AS company_type,
       CASE WHEN marks.name IN ('json', 'jsonb') THEN NULL
            WHEN m.attnum IS NOT NULL THEN 't.' || pg_catalog.quote_ident(w.deleted_if) END AS mark,
       marks.name AS mark_type,
       pg_catalog.row_security_active(r.oid) OR coalesce(path.hidden, false) AS hidden,
       w.state_where, w.state_where IS NULL OR NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND a.attname <> ALL (w.exclude) AND CASE WHEN a.attname ~ '^[[:alnum:]_$]+$'
                 THEN pg_catalog.lower(a.attname) = ANY (bound.words)
                 ELSE pg_catalog.strpos(w.state_where, a.attname) > 0 END
             AND (a.attgenerated = 'v' OR notifier.bounding_type(a.atttypid) IS NULL)) AS bounded
FROM notifier.watches AS w
LEFT JOIN pg_catalog.pg_class AS r ON r.oid = notifier.relation_of(w.relation) AND r.relkind IN ('r', 'p')
LEFT JOIN LATERAL (
    {path}
) AS path ON true
LEFT JOIN pg_catalog.pg_attribute AS c ON c.attrelid = coalesce(path.last, r.oid)
                                      AND c.attname = coalesce(path.value, w.company) AND NOT c.attisdropped
CROSS JOIN (
    SELECT pg_catalog.count(DISTINCT c.relowner) > 1 AS has_owners
    FROM (SELECT relation FROM notifier.watches UNION SELECT relation FROM notifier.steps) AS named
    JOIN pg_catalog.pg_class AS c ON c.oid = notifier.relation_of(named.relation)
) AS owners
CROSS JOIN LATERAL (
    SELECT pg_catalog.regexp_split_to_array(
        pg_catalog.lower(pg_catalog.regexp_replace(w.state_where, '''[^'']*''', '', 'g')), '[^[:alnum:]_$]+') AS words
) AS bound
LEFT JOIN types ON types.oid = c.atttypid
LEFT JOIN pg_catalog.pg_attribute AS m ON m.attrelid = r.oid AND m.attname = w.deleted_if
                                      AND NOT m.attisdropped AND m.attgenerated <> 'v'
LEFT JOIN types AS marks ON marks.oid = m.atttypid
ORDER BY w.entity
