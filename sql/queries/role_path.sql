-- Sets the search_path for the rest of the transaction: the role's own, without the schema that "$user" stands for where
-- that belongs to a role that could not act as this one or as the database's owner. Any role with CREATE on the database
-- can create that schema, and so choose which tables and functions a query finds. It counts where it has a watched table
-- (`watched`). Every operator is qualified: the path may not begin with pg_catalog.
SELECT pg_catalog.set_config('search_path', coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(given.name), ', ' ORDER BY given.n), ''), true)
FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS given (name, n)
WHERE given.name OPERATOR(pg_catalog.<>) current_user
   OR pg_catalog.strpos(pg_catalog.current_setting('search_path'), '$user') OPERATOR(pg_catalog.=) 0
   OR EXISTS (
       SELECT FROM pg_catalog.pg_namespace AS s, pg_catalog.pg_database AS d
       WHERE s.nspname OPERATOR(pg_catalog.=) given.name AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
         AND (pg_catalog.pg_has_role(s.nspowner, current_user, 'MEMBER') OR pg_catalog.pg_has_role(s.nspowner, d.datdba, 'MEMBER')
              OR {watched})
   )
