-- The tables of members of which row-level security hides rows from the current role. It reads the
-- catalogue alone: a query of such a table would run code in its indexes, as the role that migrates.
SELECT pg_catalog.string_agg(w.relation, ', ' ORDER BY w.relation)
FROM notifier.watches AS w
WHERE w.member <> '' AND pg_catalog.row_security_active(pg_catalog.to_regclass(w.relation)::oid)
