-- The problems that keep changes of watched tables from being captured. `fatal`: changes that
-- clients rely on are missed; the rest concerns single tables that are gone, parts of a table, or single tenants. A
-- tenant whose schema is gone is no problem.
--
-- A column counts if an option names it without which capture stores another image, or another user receives it; not
-- those of `rename`. One that was replaced by a virtual column counts as gone: no trigger sees its values.
CREATE OR REPLACE FUNCTION notifier.watch_problems()
RETURNS TABLE(kind text, object text, fatal boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH watched AS MATERIALIZED (
        SELECT w.*, notifier.relation_of(w.relation)::oid AS root FROM notifier.watches AS w
    )
    SELECT 'table', w.relation,
           w.tenant IS NULL AND (w.member IS NOT NULL OR NOT EXISTS (SELECT FROM watched AS other WHERE other.root IS NOT NULL))
    FROM watched AS w
    WHERE w.root IS NULL AND (w.tenant IS NULL OR to_regnamespace(quote_ident(w.tenant)) IS NOT NULL)
    UNION ALL
    SELECT 'column', format('%s.%I', w.relation, named.name), w.tenant IS NULL
    FROM watched AS w
    CROSS JOIN LATERAL unnest(ARRAY[w.key, CASE WHEN w.path IS NULL THEN w.company END, w.member, w.deleted_if] || w.more_keys || w.visible_to || w.exclude
                                    || ARRAY(SELECT w.member_if[i][1] FROM generate_subscripts(w.member_if, 1) AS i)) AS named (name)
    WHERE w.root IS NOT NULL AND named.name IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = w.root AND a.attname = named.name AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.attgenerated <> 'v' OR named.name = ANY (w.exclude))
    )
    UNION ALL
    SELECT 'column', format('%s.%I (%s)', w.relation, r.name, coalesce('now ' || quote_ident(r.now), 'dropped and added again')), w.tenant IS NULL
    FROM watched AS w
    JOIN notifier.renamed_columns() AS r ON r.relation = w.root
                                        AND (r.name = ANY (w.visible_to) OR r.now IS NOT NULL AND r.name = ANY (w.exclude))
    JOIN pg_attribute AS a ON a.attrelid = w.root AND a.attname = r.name AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT CASE WHEN notifier.relation_of(s.relation) IS NULL THEN 'table' ELSE 'column' END,
           concat_ws('.', s.relation, CASE WHEN notifier.relation_of(s.relation) IS NOT NULL THEN quote_ident(named.name) END), true
    FROM notifier.steps AS s
    CROSS JOIN LATERAL unnest(ARRAY[s.key, s.value]) AS named (name)
    WHERE named.name IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute AS a
        WHERE a.attrelid = notifier.relation_of(s.relation) AND a.attname = named.name
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    ) AND (s.step > 0 OR notifier.relation_of(s.relation) IS NOT NULL)
    UNION ALL
    SELECT 'child', h.inhrelid::regclass::text, w.tenant IS NULL
    FROM watched AS w
    JOIN pg_inherits AS h ON h.inhparent = w.root
    JOIN pg_class AS c ON c.oid = h.inhrelid AND NOT c.relispartition
    WHERE NOT EXISTS (SELECT FROM watched AS other WHERE other.root = h.inhrelid)
    UNION ALL
    SELECT CASE WHEN t.wanted THEN 'trigger' ELSE 'leftover' END, t.relation,
           t.wanted AND EXISTS (
               SELECT FROM (SELECT relation FROM notifier.watches WHERE tenant IS NULL UNION SELECT relation FROM notifier.steps) AS w
               WHERE w.relation = t.relation)
    FROM notifier.capture_triggers(NULL) AS t
    WHERE NOT t.sound
$$;
