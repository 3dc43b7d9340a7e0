-- The owner of the schema `notifier`, or the current role where there is none yet.
SELECT coalesce((SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'notifier'),
                current_user)::text
