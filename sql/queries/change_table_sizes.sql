-- The last id of a change, and the bytes of both tables of changes.
SELECT last_value, pg_relation_size('notifier.changes_0') AS zero,
       pg_relation_size('notifier.changes_1') AS one
FROM notifier.change_ids
