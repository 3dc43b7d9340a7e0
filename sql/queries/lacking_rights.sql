-- The rights that `notifier serve` needs and role $1 does not have, in the words of GRANT. `outside`: on an
-- object of the application's. `of_tenant`: only tables of tenants need it.
SELECT needed.privilege || ' ON ' || needed.object AS privilege, needed.outside, needed.of_tenant
FROM (
    SELECT 'USAGE' AS privilege, 'SCHEMA notifier' AS object,
           pg_catalog.has_schema_privilege($1::text, 'notifier', 'USAGE') AS held, false AS outside,
           false AS of_tenant
    UNION ALL
    SELECT 'SELECT', c.oid::regclass::text, pg_catalog.has_table_privilege($1::text, c.oid, 'SELECT'), false, false
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = 'notifier'::regnamespace AND c.relkind IN ('r', 'v')
      AND NOT c.relispartition AND c.oid NOT IN ('notifier.changes_0'::regclass, 'notifier.changes_1'::regclass)
    UNION ALL
    -- the texts of the log are read by way of views: see `refuse_reading.sql`
    SELECT pg_catalog.format('SELECT (%s)', column_name), relation::text,
           pg_catalog.has_column_privilege($1::text, relation, column_name, 'SELECT'), false, false
    FROM (VALUES
        ('notifier.messages'::regclass, '{slot, seq, company, position, at, stored, cursor}'::text[]),
        ('notifier.changes_0', '{id, xid}'), ('notifier.changes_1', '{id, xid}')
    ) AS ours (relation, columns) CROSS JOIN LATERAL pg_catalog.unnest(columns) AS column_name
    UNION ALL
    SELECT privilege, relation::text, pg_catalog.has_table_privilege($1::text, relation, privilege), false, false
    FROM (VALUES
        ('TRUNCATE', 'notifier.changes_0'::regclass), ('TRUNCATE', 'notifier.changes_1'::regclass),
        ('DELETE', 'notifier.changes_0'), ('DELETE', 'notifier.changes_1'),
        ('INSERT', 'notifier.messages'), ('DELETE', 'notifier.messages'),
        ('INSERT', 'notifier.positions'), ('UPDATE', 'notifier.positions'), ('UPDATE', 'notifier.log'), ('UPDATE', 'notifier.moves')
    ) AS ours (privilege, relation)
    UNION ALL
    SELECT 'TRUNCATE', p.relid::text, pg_catalog.has_table_privilege($1::text, p.relid, 'TRUNCATE'), false, false
    FROM pg_catalog.pg_partition_tree('notifier.messages') AS p
    UNION ALL
    SELECT 'SELECT', 'SEQUENCE notifier.change_ids', pg_catalog.has_sequence_privilege($1::text, 'notifier.change_ids', 'SELECT'), false, false
    UNION ALL
    -- those that its queries and the views call, and the functions that these call; `columns_of` for a state with
    -- composite types
    SELECT 'EXECUTE', 'FUNCTION ' || p.oid::regprocedure, pg_catalog.has_function_privilege($1::text, p.oid, 'EXECUTE'), false, false
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = 'notifier'::regnamespace
      AND p.proname IN ('bounding_type', 'capture_triggers', 'catalogue_version', 'columns_of', 'elect', 'is_plain_type',
                        'json_expression', 'log_bytes', 'planning_time', 'prune', 'readable_json', 'refuse_reading', 'relation_of', 'relay_holders',
                        'renamed_columns', 'reopen', 'rotate_changes', 'sanitize_json', 'system', 'transaction_status',
                        'truncate_changes', 'wait_for_changes', 'watch_problems')
    UNION ALL
    -- what the default membership query reads
    SELECT pg_catalog.format('SELECT (%I)', a.attname), w.relation,
           pg_catalog.has_column_privilege($1::text, a.attrelid, a.attnum, 'SELECT'), true, w.tenant IS NOT NULL
    FROM notifier.watches AS w
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = notifier.relation_of(w.relation)
     AND (a.attname IN (w.company, w.member, w.deleted_if)
          OR a.attname = ANY (ARRAY(SELECT w.member_if[i][1] FROM pg_catalog.generate_subscripts(w.member_if, 1) AS i)))
     AND a.attnum > 0
    WHERE w.member IS NOT NULL
    UNION ALL
    SELECT DISTINCT pg_catalog.format('SELECT (%I)', a.attname), s.relation,
           pg_catalog.has_column_privilege($1::text, a.attrelid, a.attnum, 'SELECT'), true, false
    FROM notifier.steps AS s
    JOIN notifier.watches AS w ON w.entity = s.watch
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = notifier.relation_of(s.relation)
     AND a.attname IN (s.key, s.value) AND a.attnum > 0
    WHERE w.member IS NOT NULL
       OR EXISTS (SELECT FROM notifier.grants AS g WHERE g.role = $1::text AND g.privilege = 'state')
    UNION ALL
    -- what `migrate --grant ROLE --state` adds
    SELECT pg_catalog.format('SELECT (%I)', a.attname), w.relation,
           pg_catalog.has_column_privilege($1::text, a.attrelid, a.attnum, 'SELECT'), true, w.tenant IS NOT NULL
    FROM notifier.watches AS w
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = notifier.relation_of(w.relation)
     AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (w.exclude)
    WHERE EXISTS (SELECT FROM notifier.grants AS g WHERE g.role = $1::text AND g.privilege = 'state')
    UNION ALL
    SELECT 'USAGE', pg_catalog.format('SCHEMA %I', n.nspname),
           pg_catalog.has_schema_privilege($1::text, n.oid, 'USAGE'), true, pg_catalog.bool_and(w.tenant IS NOT NULL)
    -- without it no table of the schema is found, also where none of its rows is read
    FROM (SELECT relation, tenant FROM notifier.watches UNION SELECT relation, NULL FROM notifier.steps) AS w
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = (pg_catalog.parse_ident(w.relation))[1]
    GROUP BY n.oid, n.nspname
) AS needed
WHERE NOT needed.held
