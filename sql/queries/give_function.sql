-- Gives a function of the schema to a role, which needs CREATE on the schema for that moment.
GRANT CREATE ON SCHEMA notifier TO {owner};
ALTER FUNCTION notifier.{function} OWNER TO {owner};
REVOKE CREATE ON SCHEMA notifier FROM {owner}
