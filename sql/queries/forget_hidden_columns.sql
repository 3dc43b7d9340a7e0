-- Removes the columns of the relations $1 (null: of all) that are to be saved again, which are all but those that were renamed
-- while a watch excludes them by their former name: what such a column holds must not be sent until a watch excludes it by its new one.
DELETE FROM notifier.hidden_columns AS h
WHERE ($1::text[] IS NULL OR h.relation = ANY (ARRAY(
    SELECT r.oid FROM unnest($1) AS given (name)
    JOIN pg_namespace AS n ON n.nspname = (parse_ident(given.name))[1]
    JOIN pg_class AS r ON r.relnamespace = n.oid AND r.relname = (parse_ident(given.name))[2]
)))
  AND NOT EXISTS (
    SELECT FROM notifier.watches AS w
    JOIN pg_attribute AS a ON a.attrelid = h.relation AND a.attnum = h.number
    JOIN pg_class AS r ON r.oid = h.relation AND r.relname = (parse_ident(w.relation))[2]
    JOIN pg_namespace AS n ON n.oid = r.relnamespace AND n.nspname = (parse_ident(w.relation))[1]
    WHERE h.excluded AND h.name = ANY (w.exclude)
      AND NOT a.attisdropped AND a.attname <> h.name AND a.attname <> ALL (w.exclude)
      AND h.database IN (
          SELECT format('%s/%s', own.oid, own.reltype) FROM pg_class AS own WHERE own.oid = 'notifier.hidden_columns'::regclass
          UNION ALL SELECT regexp_replace(notifier.system(), '/.*/', '/')  -- as the version before has saved it
      ))
