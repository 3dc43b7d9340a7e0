-- The watched tables. `json_columns`: those whose values are sent as they are;
-- `virtual_columns`: those that no trigger sees.
SELECT w.*,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
           WHERE a.attrelid = to_regclass(w.relation) AND a.attnum > 0
             -- a domain is printed by its base type
             AND t.typoutput IN ('json_out'::regproc, 'jsonb_out'::regproc)) AS json_columns,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute AS a
           WHERE a.attrelid = to_regclass(w.relation) AND a.attgenerated = 'v') AS virtual_columns
FROM notifier.watches AS w
