-- The inputs of the membership query: it is compiled again when this text changes. `tenant`: with the tables of this one.
SELECT pg_catalog.concat_ws(';', pg_catalog.string_agg(pg_catalog.concat_ws(
           ' ', w.relation, w.scope, w.company, w.member, w.deleted_if, w.member_if, r.oid, r.relkind,
           w.path, ARRAY(
               SELECT (s.step, s.key, s.value, t.oid, t.relkind, t.relowner, ARRAY(
                   SELECT (a.attname, a.atttypid) FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = t.oid AND a.attname IN (s.key, s.value) AND NOT a.attisdropped ORDER BY a.attname))
               FROM notifier.steps AS s LEFT JOIN pg_catalog.pg_class AS t ON t.oid = notifier.relation_of(s.relation)
               WHERE s.watch = w.entity ORDER BY s.step),
           c.attnum, c.atttypid, m.attnum, m.atttypid, CASE WHEN w.tenant IS NOT NULL THEN EXISTS (
               SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = r.oid AND t.tgfoid = 'notifier.capture'::pg_catalog.regproc) END,
           ARRAY(SELECT (d.attnum, d.atttypid) FROM pg_catalog.pg_attribute AS d
                 WHERE d.attrelid = r.oid AND (d.attname = w.deleted_if OR d.attname = ANY (w.member_if))
                   AND NOT d.attisdropped ORDER BY d.attnum),
           EXISTS (
               SELECT FROM pg_catalog.pg_index AS i
               WHERE i.indrelid = r.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                 AND i.indnatts = 2 AND c.attnum = ANY (i.indkey) AND m.attnum = ANY (i.indkey)
           )), ',' ORDER BY w.entity),
       (SELECT c.version FROM notifier.configuration AS c),
       (SELECT p.proowner FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'notifier'::pg_catalog.regnamespace AND p.proname = 'path_company'),
       (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.name, s.membership), ',' ORDER BY s.name)
        FROM notifier.scopes AS s))
FROM notifier.watches AS w
LEFT JOIN pg_catalog.pg_class AS r ON r.oid = notifier.relation_of(w.relation)
LEFT JOIN pg_catalog.pg_attribute AS c
       ON c.attrelid = r.oid AND c.attname = w.company AND NOT c.attisdropped
LEFT JOIN pg_catalog.pg_attribute AS m
       ON m.attrelid = r.oid AND m.attname = w.member AND NOT m.attisdropped
WHERE w.member <> '' AND (w.tenant IS NULL OR w.tenant = {tenant})
