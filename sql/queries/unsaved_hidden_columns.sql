-- Whether the number of a column of relation $1 that watches hide by one of the names $2 is not known: in a restored
-- dump, whose tables have other numbers, and where the column was dropped and created again.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = notifier.relation_of($1) AND a.attname = ANY ($2::text[]) AND a.attnum > 0 AND NOT a.attisdropped
      AND NOT EXISTS (SELECT FROM notifier.hidden_columns AS h WHERE h.relation = a.attrelid AND h.name = a.attname AND h.number = a.attnum))
