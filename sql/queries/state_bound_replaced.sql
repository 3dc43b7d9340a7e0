-- Whether a column of notifier.state_bound_columns has a type that is not a bounding type: an expression with a value
-- of it could run code of the application.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = 'notifier.state_bound_columns'::pg_catalog.regclass AND a.attnum > 0
      AND notifier.bounding_type(a.atttypid) IS DISTINCT FROM a.atttypid
)
