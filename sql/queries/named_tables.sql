-- The OIDs of the tables $1, spelled as in SQL, in that order; null where there is none. It runs with the role's own
-- search_path, so it has no operator: PostgreSQL prefers one of the application that takes exactly these types to its
-- own that takes similar ones.
SELECT pg_catalog.to_regclass(given.name)::pg_catalog.oid
FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS given (name, n)
ORDER BY given.n
