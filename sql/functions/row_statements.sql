-- The statements that make JSON of the rows of these relations, by their OIDs; not of the plain ones, nor of those with a
-- composite type, at any depth, that is not among these relations: when it is altered, no plan is discarded. Null: there
-- is no statement.
--
-- IMMUTABLE, and it only calls a VOLATILE function, for the same reasons as `plain_relations`.
CREATE OR REPLACE FUNCTION notifier.row_statements(relations regclass[]) RETURNS json
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN notifier.row_statements_now(relations);
END
$$;
