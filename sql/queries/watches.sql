-- The watched tables, with every option (a new one needs no change here). `json_columns`: those whose values are sent
-- as they are; `time_columns`: timestamps, and arrays of them, also those with a time zone: a change that was
-- captured before the column had one has a value without; `loose_columns`: those of which equal values may have several texts, which
-- depend on settings of the session (money), or on names that another statement may alter (regclass, labels of an enum);
-- `number_columns`: those of which equal numbers may have several texts; `column_versions`: number, version of its row in the catalogue,
-- and name of each; `virtual_columns`: those that no trigger sees. `renamed`:
-- the columns of exclude and visible_to that were renamed: their names in the watch, and their present ones (null:
-- another has the name of one that was dropped). `all_scopes`: the names of all scopes, in every row. `is_key_awaited`: a unique index that is
-- not DEFERRABLE, on columns of the key and the company (`key_numbers`), lets a transaction that inserts a key wait for the one that has deleted it. `is_strayed`: the rows of another
-- table are captured as those of this one, which is a tenant's: its schema was renamed, or copied with its triggers.
WITH captured (entity, relation) AS MATERIALIZED (
    SELECT split_part(encode(t.tgargs, 'escape'), '\000', 1), t.tgrelid
    FROM pg_trigger AS t
    WHERE t.tgfoid = 'notifier.capture'::regproc AND t.tgparentid = 0 AND t.tgtype & 1 = 1
      AND EXISTS (SELECT FROM notifier.watches WHERE tenant IS NOT NULL)
)
SELECT w.*, c.*,
       ARRAY(
           SELECT ARRAY[r.name, r.now] FROM notifier.renamed_columns() AS r
           WHERE r.relation = notifier.relation_of(w.relation)) AS renamed,
       ARRAY(SELECT s.name FROM notifier.scopes AS s) AS all_scopes,
       EXISTS (
           SELECT FROM pg_index AS i
           WHERE i.indrelid = notifier.relation_of(w.relation) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indisready
             AND i.indpred IS NULL AND i.indexprs IS NULL
             AND (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ c.key_numbers) AS is_key_awaited,
       w.tenant IS NOT NULL AND EXISTS (
           SELECT FROM captured AS c
           WHERE c.entity = encode(convert_to(w.captured_as, getdatabaseencoding()), 'escape')
             AND c.relation IS DISTINCT FROM notifier.relation_of(w.relation)::oid) AS is_strayed
FROM notifier.watches AS w
CROSS JOIN LATERAL (  -- one pass over the columns: the relay repeats it every second, for each table of each tenant
    SELECT coalesce(array_agg(a.attname::text), '{}') AS columns,
           -- a domain is printed by its base type
           coalesce(array_agg(a.attname::text) FILTER (
               WHERE t.typoutput IN ('json_out'::regproc, 'jsonb_out'::regproc)), '{}') AS json_columns,
           coalesce(array_agg(a.attname::text) FILTER (
               WHERE output.oid IN ('timestamp_out'::regproc, 'timestamptz_out'::regproc)), '{}') AS time_columns,
           coalesce(array_agg(a.attname::text) FILTER (
               WHERE output.oid >= :first_user_oid OR output.proname ~ '^(cash_|enum_|record_|aclitem|reg[a-z]*)out$'
                  -- of ranges and domains over arrays the elements are not looked at
                  OR t.oid >= :first_user_oid AND output.proname ~ '^(array_|range_|multirange_)out$'), '{}') AS loose_columns,
           coalesce(array_agg(a.attname::text) FILTER (
               WHERE t.typoutput IN ('numeric_out'::regproc, 'float4out'::regproc, 'float8out'::regproc)), '{}') AS number_columns,
           coalesce(array_agg(concat_ws(' ', a.attnum, a.xmin, a.attname)), '{}') AS column_versions,
           coalesce(array_agg(a.attname::text) FILTER (WHERE a.attgenerated = 'v'), '{}') AS virtual_columns,
           array_agg(a.attnum) FILTER (
               WHERE a.attname = w.key OR a.attname = ANY (w.more_keys) OR a.attname = w.company AND w.path IS NULL) AS key_numbers
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS element ON element.oid = t.typelem AND t.typcategory = 'A'
    JOIN pg_proc AS output ON output.oid = coalesce(element.typoutput, t.typoutput)
    WHERE a.attrelid = notifier.relation_of(w.relation) AND a.attnum > 0 AND NOT a.attisdropped
) AS c
