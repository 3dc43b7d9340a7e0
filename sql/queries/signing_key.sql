-- The key by which the relay signs what it publishes to NATS. A copy of the database has another one: the random value is
-- not part of a dump, and a copy of the files is served by a server that was started at another time.
SELECT pg_catalog.sha256(secret || pg_catalog.convert_to(
    pg_catalog.concat_ws(' ', notifier.system(), extract(epoch FROM pg_catalog.pg_postmaster_start_time())), 'UTF8'))
FROM notifier.signing_secret
