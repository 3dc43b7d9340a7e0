-- The watches with all their options, each with the columns of its table that messages have: without those that no
-- trigger sees.
SELECT w.*,
       ARRAY(
           SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
           WHERE a.attrelid = notifier.relation_of(w.relation) AND a.attnum > 0
             AND NOT a.attisdropped AND a.attgenerated <> 'v') AS columns
FROM notifier.watches AS w
