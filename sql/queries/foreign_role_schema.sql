-- The owner of the schema that "$user" stands for, where `role_path.sql` leaves it out of the search_path; no row else.
SELECT pg_catalog.pg_get_userbyid(s.nspowner)::text AS owner
FROM pg_catalog.pg_namespace AS s, pg_catalog.pg_database AS d
WHERE s.nspname = current_user AND d.datname = pg_catalog.current_database()
  AND NOT pg_catalog.pg_has_role(s.nspowner, current_user, 'MEMBER') AND NOT pg_catalog.pg_has_role(s.nspowner, d.datdba, 'MEMBER')
  AND NOT EXISTS (SELECT FROM notifier.watches AS w JOIN pg_catalog.pg_class AS c ON c.oid = notifier.relation_of(w.relation)
                  WHERE c.relnamespace = s.oid)
