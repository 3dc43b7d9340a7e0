-- Terminates the notifier's other connections to this database, those that this role may terminate.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name ~ '^(.*: )?notifier ' AND usename = current_user AND datname = current_database()
    AND pid <> pg_backend_pid()
