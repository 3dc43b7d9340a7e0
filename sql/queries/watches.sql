-- The watched tables. `untouched`: their columns of JSON, whose values travel as they are; `virtual`: those
-- that no trigger sees.
SELECT w.*,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
           WHERE a.attrelid = to_regclass(w.relation) AND a.attnum > 0
             -- a domain is printed by its base type
             AND t.typoutput IN ('json_out'::regproc, 'jsonb_out'::regproc)) AS untouched,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute AS a
           WHERE a.attrelid = to_regclass(w.relation) AND a.attgenerated = 'v') AS virtual
FROM notifier.watches AS w
