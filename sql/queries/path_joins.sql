-- The tables along the path of watch `w`, as they are joined to its rows, whose alias replaces the word in braces; nulls
-- without a path. `last` and `value`: the table and the column that name the company, `company` as it is called in the
-- join. No column of the watched table has one of these names. `present`: they are ordinary tables of the owner of
-- `path_company`, as capture demands, so that no other role's table that takes the place of one decides. `hidden`:
-- row-level security applies to the current role.
SELECT (array_agg(step.oid ORDER BY step.step DESC))[1] AS last, (array_agg(step.value ORDER BY step.step DESC))[1] AS value,
       CASE WHEN count(*) > 0 THEN pg_catalog.format('"->%1$s"."->v%1$s"', max(step.step)) END AS company,
       pg_catalog.string_agg(pg_catalog.format(
           ' JOIN (SELECT p.%I AS "->k%s", p.%I AS "->v%s" FROM ONLY %s AS p) AS "->%s" ON "->%s"."->k%s" OPERATOR(pg_catalog.=) %s',
           step.key, step.step, step.value, step.step, step.relation, step.step, step.step, step.step,
           CASE step.step WHEN 1 THEN pg_catalog.format('{row}.%I', step.former)
                ELSE pg_catalog.format('"->%1$s"."->v%1$s"', step.step - 1) END), '' ORDER BY step.step)
           FILTER (WHERE step.step > 0) AS joins,
       pg_catalog.bool_and(step.is_sound) AS present,
       pg_catalog.bool_or(step.step > 0 AND pg_catalog.row_security_active(step.oid)) AS hidden
FROM (
    SELECT s.step, s.relation, s.key, s.value, t.oid, lag(s.value) OVER (ORDER BY s.step) AS former,
           t.oid IS NOT NULL AND (s.step = 0 OR t.relkind = 'r' AND t.relowner = (
               SELECT p.proowner FROM pg_catalog.pg_proc AS p
               WHERE p.pronamespace = 'notifier'::pg_catalog.regnamespace AND p.proname = 'path_company'
           )) AND NOT EXISTS (
               SELECT FROM pg_catalog.unnest(ARRAY[s.key, s.value]) AS named (name)
               WHERE named.name IS NOT NULL AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = t.oid AND a.attname = named.name AND NOT a.attisdropped)) AS is_sound
    FROM notifier.steps AS s
    LEFT JOIN pg_catalog.pg_class AS t ON t.oid = notifier.relation_of(s.relation)
    WHERE s.watch = w.entity
) AS step
