-- The tables of members of which row-level security hides rows from the current role. It reads the
-- catalogue alone: a query of such a table would run code in its indexes, as the role that migrates.
SELECT pg_catalog.string_agg(w.relation, ', ' ORDER BY w.relation)
FROM (
    SELECT relation FROM notifier.watches WHERE member <> ''
    UNION SELECT s.relation FROM notifier.steps AS s JOIN notifier.watches AS m ON m.entity = s.watch WHERE m.member <> ''
) AS w
WHERE pg_catalog.row_security_active(pg_catalog.to_regclass(w.relation)::oid)
