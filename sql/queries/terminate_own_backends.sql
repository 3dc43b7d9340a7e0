-- Ends every link of the notifier's to this database that this role may end, but the one that asks.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name ~ '^(.*: )?notifier ' AND usename = current_user AND datname = current_database()
    AND pid <> pg_backend_pid()
