-- The tables $1, first those that fewest foreign keys refer to. Ours comes last: capture locks it within a write of
-- another.
SELECT relation FROM pg_catalog.unnest($1::text[]) AS relation
ORDER BY relation = 'notifier.vanished', (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND confrelid = (
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = (pg_catalog.parse_ident(relation))[1] AND c.relname = (pg_catalog.parse_ident(relation))[2]
    )
), relation
