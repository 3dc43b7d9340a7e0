-- A statement that makes JSON of the row $1 of a relation as row_to_json does, but runs nothing of the
-- application's. `columns`: these alone; null: all. It fails where one of them is gone.
CREATE OR REPLACE FUNCTION notifier.row_statement(relation oid, columns text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields text;
    found_columns text[];
BEGIN
    SELECT string_agg(format('%s AS %I', notifier.json_expression(format('($1).%I', c.name), c.type), c.name), ', ' ORDER BY c.number),
           array_agg(c.name)
    INTO fields, found_columns
    FROM notifier.columns_of(relation) AS c
    WHERE columns IS NULL OR c.name = ANY (columns);
    IF NOT columns <@ coalesce(found_columns, '{}') THEN
        RAISE undefined_column;
    END IF;
    RETURN format('SELECT row_to_json(r.*) FROM (SELECT %s) AS r', fields);
END
$$;
