-- The key by which the relay signs what it publishes to NATS. It is another one in a copy of the database.
SELECT pg_catalog.sha256(secret || pg_catalog.convert_to(notifier.system(), 'UTF8')) FROM notifier.signing_key
