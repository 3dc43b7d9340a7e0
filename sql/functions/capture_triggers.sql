-- The triggers that the watches need and those that call a function of ours, side by side: of the table `only`, and
-- its partitions, or of all (null).
--
-- Rows of a partition are captured by its parent's trigger, which PostgreSQL clones. It does not clone
-- statement triggers, so that a TRUNCATE of one partition needs a trigger on that partition.
CREATE OR REPLACE FUNCTION notifier.capture_triggers(only_table text)
RETURNS TABLE(relation text, name text, statement text, wanted boolean, present boolean, sound boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE own AS MATERIALIZED (
        SELECT w.*, count(*) OVER (PARTITION BY w.captured_as) AS watches
        -- not "only_table IS NULL OR", of which the planner expects so few rows that it joins them by nested loops
        FROM notifier.watches AS w WHERE coalesce(w.relation = only_table, true)
    ), named (captured_as, watch, kind, name, n) AS (
        SELECT o.captured_as, o.entity, 'key', k.name, k.n
        FROM own AS o
        LEFT JOIN notifier.steps AS s ON s.watch = o.entity AND s.step = 0
        CROSS JOIN LATERAL unnest(o.key || o.more_keys || coalesce(s.value, o.company) || o.deleted_if || o.visible_to)
                           WITH ORDINALITY AS k (name, n)
        WHERE k.name IS NOT NULL
        UNION ALL
        SELECT o.captured_as, o.captured_as, 'excluded', c.name, min(c.n) FILTER (WHERE o.entity = o.captured_as)
        FROM own AS o CROSS JOIN LATERAL unnest(o.exclude) WITH ORDINALITY AS c (name, n)
        GROUP BY o.captured_as, c.name
        -- what one watch excludes and another one does not is left out by the relay
        HAVING count(DISTINCT o.entity) = min(o.watches)
        UNION ALL
        SELECT o.captured_as, s.watch, 'path', pair.name, pair.n
        FROM own AS o
        JOIN notifier.steps AS s ON s.watch = o.entity AND s.step = 0
        CROSS JOIN LATERAL unnest(ARRAY[s.watch, s.value]) WITH ORDINALITY AS pair (name, n)
    ), shared AS MATERIALIZED (  -- what the watches of a table name, which is captured once
        SELECT m.captured_as,
               array_agg(m.name ORDER BY m.watch <> m.captured_as, m.watch, m.n) FILTER (WHERE m.kind = 'key') AS keys,
               string_agg(format('"%s"', replace(replace(m.name, '\', '\\'), '"', '\"')), ',' ORDER BY m.n)
                   FILTER (WHERE m.kind = 'excluded') AS excluded,
               array_agg(m.name ORDER BY m.watch, m.n) FILTER (WHERE m.kind = 'path') AS paths
        FROM named AS m
        GROUP BY m.captured_as
    ), watched AS MATERIALIZED (
        SELECT notifier.relation_of(w.relation)::oid AS root,
               ARRAY[w.entity, w.key, coalesce(w.company, w.key)]
                 || CASE WHEN shared.excluded IS NOT NULL OR keys.are_needed THEN ARRAY[format('{%s}', shared.excluded)] END
                 || CASE WHEN keys.are_needed THEN ARRAY[shared.keys::text] END
                 || CASE WHEN shared.paths IS NOT NULL THEN ARRAY[shared.paths::text] END AS arguments
        FROM own AS w
        JOIN shared ON shared.captured_as = w.entity
        CROSS JOIN LATERAL (
            SELECT w.watches > 1 OR w.deleted_if IS NOT NULL OR w.more_keys <> '{}' OR w.visible_to <> '{}'
                   OR w.path IS NOT NULL AS are_needed
        ) AS keys
        WHERE w.entity = w.captured_as
    ), partitions (root, oid) AS (
        -- not by pg_partition_tree, which locks them: the probe of each node would wait for what holds a lock on one
        SELECT r.oid, i.inhrelid
        FROM (SELECT w.root FROM watched AS w UNION SELECT notifier.relation_of(only_table)::oid) AS r (oid)
        JOIN pg_inherits AS i ON i.inhparent = r.oid AND NOT i.inhdetachpending
        JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relispartition
        UNION ALL
        SELECT p.root, i.inhrelid FROM partitions AS p JOIN pg_inherits AS i ON i.inhparent = p.oid AND NOT i.inhdetachpending
    ), disabled AS MATERIALIZED (
        -- a partition's copy of the trigger for rows, which its owner can disable alone
        SELECT p.root FROM partitions AS p
        JOIN pg_trigger AS t ON t.tgrelid = p.oid AND t.tgparentid <> 0 AND t.tgenabled IN ('D', 'R')
        WHERE t.tgfoid = to_regproc('notifier.capture')::oid
    ), crossed AS (
        SELECT notifier.relation_of(s.relation)::oid AS relid, array_agg(pair.name ORDER BY s.watch, s.step, pair.n) AS steps,
               NOT bool_and(s.enforced) AS is_loose
        FROM notifier.steps AS s
        JOIN notifier.watches AS w ON w.entity = s.watch
        CROSS JOIN LATERAL unnest(ARRAY[
            w.captured_as, s.watch, s.step::text, s.key, s.value,
            concat_ws(' ', CASE WHEN s.step = (SELECT max(l.step) FROM notifier.steps AS l WHERE l.watch = s.watch) THEN 'last' END,
                           CASE WHEN NOT s.enforced THEN 'loose' END)
        ]) WITH ORDINALITY AS pair (name, n)
        WHERE s.step > 0 AND notifier.relation_of(s.relation) IS NOT NULL AND (only_table IS NULL OR s.relation = only_table)
        GROUP BY 1
    ), wanted AS (
        SELECT c.relid, kind.name, kind.type, 'TRIGGER' AS kind, kind.clause, 'capture_parent' AS function,
               ARRAY[c.steps::text] AS arguments
        FROM crossed AS c
        CROSS JOIN LATERAL (VALUES
            ('notifier_path', 1 + 16 + CASE WHEN c.is_loose THEN 4 ELSE 0 END,
             CASE WHEN c.is_loose THEN 'AFTER INSERT OR UPDATE' ELSE 'AFTER UPDATE' END || ' ON %s FOR EACH ROW'),
            -- before: a foreign key may delete the rows that refer to it first
            ('notifier_path_delete', 1 + 2 + 8, 'BEFORE DELETE ON %s FOR EACH ROW'),
            ('notifier_path_truncate', 32, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT')
        ) AS kind (name, type, clause)
        UNION ALL
        SELECT 'notifier.vanished'::regclass, 'notifier_replaced', 1 + 4 + 16, 'CONSTRAINT TRIGGER',
               'AFTER INSERT OR UPDATE ON %s DEFERRABLE INITIALLY DEFERRED FOR EACH ROW', 'capture_replaced', '{}'
        WHERE EXISTS (SELECT FROM crossed) AND only_table IS NULL
        UNION ALL
        SELECT part.oid, kind.name, kind.type, 'TRIGGER', kind.clause, 'capture', watched.arguments
        FROM watched
        JOIN (
            SELECT w.root, w.root FROM watched AS w UNION SELECT p.root, p.oid FROM partitions AS p
        ) AS part (root, oid) ON part.root = watched.root
        -- the bits of pg_trigger.tgtype: 1 row, 4 insert, 8 delete, 16 update, 32 truncate
        CROSS JOIN (VALUES
            ('notifier_capture', 1 + 4 + 8 + 16, 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'),
            ('notifier_capture_truncate', 32, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT')
        ) AS kind (name, type, clause)
        WHERE watched.root IS NOT NULL AND (part.oid = watched.root OR kind.type = 32)
    ), present AS (
        SELECT t.tgrelid AS relid, t.tgname::text AS name, t.tgtype AS type, t.tgargs AS arguments,
               t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL AND t.tgattr = ''
                   AND (t.tgtype & 1 = 0 OR t.tgrelid NOT IN (SELECT d.root FROM disabled AS d)) AS usual,
               CASE WHEN t.tginitdeferred THEN 'CONSTRAINT TRIGGER' ELSE 'TRIGGER' END AS kind, p.proname::text AS function
        FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE p.pronamespace = to_regnamespace('notifier') AND NOT t.tgisinternal AND t.tgparentid = 0
          AND (only_table IS NULL OR t.tgrelid = notifier.relation_of(only_table)
               OR t.tgrelid IN (SELECT p.oid FROM partitions AS p WHERE p.root = notifier.relation_of(only_table)))
    )
    SELECT format('%I.%I', n.nspname, c.relname), name,
           format('CREATE %s %s %s EXECUTE FUNCTION notifier.%s(%s)', w.kind, name,
                  format(w.clause, format('%I.%I', n.nspname, c.relname)), w.function,
                  (SELECT string_agg(quote_literal(a), ', ' ORDER BY m) FROM unnest(w.arguments) WITH ORDINALITY AS u (a, m))),
           w.relid IS NOT NULL, p.relid IS NOT NULL,
           coalesce(p.usual AND p.function = w.function AND p.kind = w.kind AND p.type = w.type AND p.arguments = (
               SELECT coalesce(string_agg(convert_to(a, getdatabaseencoding()) || '\x00', '' ORDER BY m), '')
               FROM unnest(w.arguments) WITH ORDINALITY AS u (a, m)
           ), false)
    FROM wanted AS w FULL JOIN present AS p USING (relid, name)
    JOIN pg_class AS c ON c.oid = relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
$$;
