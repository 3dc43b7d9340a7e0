-- The reasons why `uninstall` would fail, one in each row: an object of others depends on ours; or the current role owns
-- neither an object of ours nor its schema, or does not own a table with a trigger of ours. The query locks none of these
-- objects. The arguments are those of drop_objects.sql, which names ours.
WITH RECURSIVE ours (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid, c.oid
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace
      AND (c.relkind IN ('r', 'p', 'm') AND c.relname = ANY ($1::text[]) OR c.relkind = 'S' AND c.relname = $2::text
           OR c.relkind = 'v' AND (c.relname = 'changes'
                                   OR pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $3::text)))
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass::oid, p.oid
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'notifier'::regnamespace
      AND CASE WHEN pg_catalog.to_regclass('notifier.grants') IS NULL THEN p.proname = ANY ($4::text[])
               ELSE pg_catalog.obj_description(p.oid, 'pg_proc') = $3::text END
), dropped (classid, objid) AS (  -- with what PostgreSQL drops along with it
    SELECT classid, objid FROM ours
    UNION
    SELECT d.classid, d.objid
    FROM dropped AS o
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = o.classid AND d.refobjid = o.objid
    WHERE d.deptype <> 'n' AND d.objsubid = 0
), triggers AS (
    SELECT t.oid, t.tgrelid
    FROM pg_catalog.pg_trigger AS t JOIN ours ON ours.classid = 'pg_catalog.pg_proc'::regclass AND ours.objid = t.tgfoid
)
SELECT pg_catalog.format('something else needs an object of ours: %s depends on %s',
                         CASE WHEN r.oid IS NULL THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
                              ELSE pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0) END,
                         pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)) AS problem
FROM dropped AS o
JOIN pg_catalog.pg_depend AS d ON d.refclassid = o.classid AND d.refobjid = o.objid
LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
WHERE d.deptype = 'n'
  AND NOT EXISTS (SELECT FROM dropped AS other WHERE other.classid = d.classid AND other.objid = d.objid)
  AND NOT (d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid IN (SELECT oid FROM triggers))
UNION
SELECT pg_catalog.format('table %s belongs to %s: only a member of that role, or a superuser, can drop its triggers',
                         c.oid::regclass, pg_catalog.pg_get_userbyid(c.relowner))
FROM triggers JOIN pg_catalog.pg_class AS c ON c.oid = triggers.tgrelid
WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
UNION
SELECT pg_catalog.format('schema %I belongs to %s: only a member of that role, or a superuser, can drop what is in it',
                         n.nspname, pg_catalog.pg_get_userbyid(n.nspowner))
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = 'notifier' AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE') AND EXISTS (
    SELECT FROM ours
    LEFT JOIN pg_catalog.pg_class AS c ON ours.classid = 'pg_catalog.pg_class'::regclass AND c.oid = ours.objid
    LEFT JOIN pg_catalog.pg_proc AS p ON ours.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = ours.objid
    WHERE NOT pg_catalog.pg_has_role(coalesce(c.relowner, p.proowner), 'USAGE')
)
ORDER BY problem
