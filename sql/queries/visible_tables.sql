-- The relations that the role's own search_path finds. No operator, for the reason that `named_tables.sql` gives.
SELECT c.oid FROM pg_catalog.pg_class AS c WHERE pg_catalog.pg_table_is_visible(c.oid)
