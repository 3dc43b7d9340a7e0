-- What the role that runs `notifier serve` needs and no more, in place of :role
GRANT USAGE ON SCHEMA notifier TO :role;
GRANT SELECT ON ALL TABLES IN SCHEMA notifier TO :role;
GRANT SELECT, UPDATE ON SEQUENCE notifier.change_ids TO :role;
GRANT TRUNCATE ON notifier.changes_0, notifier.changes_1 TO :role;
GRANT INSERT, DELETE ON notifier.messages TO :role;
GRANT TRUNCATE ON notifier.messages, notifier.messages_0, notifier.messages_1, notifier.messages_2, notifier.messages_3, notifier.messages_4, notifier.messages_5, notifier.messages_6, notifier.messages_7 TO :role;
GRANT INSERT, UPDATE ON notifier.positions TO :role;
GRANT UPDATE ON notifier.log TO :role;
GRANT EXECUTE ON FUNCTION notifier.log_bytes(), notifier.system(), notifier.readable_json(json), notifier.sanitize_json(json), notifier.truncate_changes(int, text, bigint), notifier.rotate_changes(), notifier.reopen(), notifier.prune(int, text, bigint) TO :role
