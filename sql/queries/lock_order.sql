-- The tables $1, first those that fewest foreign keys refer to.
SELECT relation FROM pg_catalog.unnest($1::text[]) AS relation
ORDER BY (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND confrelid = pg_catalog.to_regclass(relation)
), relation
