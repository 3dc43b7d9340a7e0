-- Stores a mark in the log: later changes are captured by the present watches. Notifies relay and nodes. A mark looks
-- like the TRUNCATE of a table: the relay, which does not know the entity '' and so loads the watches, sends each
-- company a Resync for those of the entities $1. With $2 it begins an epoch.
WITH mark AS MATERIALIZED (
    SELECT entity, pg_catalog.nextval('notifier.change_ids') AS id
    FROM (SELECT '' AS entity UNION ALL SELECT pg_catalog.unnest($1::text[])) AS marked
), zero AS (
    INSERT INTO notifier.changes_0 (id, entity, partial)
    SELECT id, entity, entity = '' AND $2::boolean FROM mark WHERE (id >> :table_bit) & 1 = 0 AND id < :full_mark
), one AS (
    INSERT INTO notifier.changes_1 (id, entity, partial)
    SELECT id, entity, entity = '' AND $2::boolean FROM mark WHERE (id >> :table_bit) & 1 = 1 AND id < :full_mark
)
SELECT pg_catalog.pg_notify('notifier_changes', ''), pg_catalog.pg_notify('notifier_messages', 'configuration')
