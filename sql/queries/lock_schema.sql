-- Keeps the schema of a table, whose full name replaces the word in braces, from being renamed or dropped until the
-- transaction ends. No row where it was renamed meanwhile.
SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname = (pg_catalog.parse_ident({relation}))[1] FOR KEY SHARE
