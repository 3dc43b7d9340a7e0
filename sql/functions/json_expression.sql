-- An expression that row_to_json renders as it renders `value`, of type `type`, where no cast to json exists;
-- evaluating it runs no application code.
--
-- What is not plain is taken by its output function: format() calls it directly, `value::text` would look
-- for a cast to text.
--
-- Of a type that is made of more than 2,000 others, each counted as often as it occurs, or nested deeper than 60 levels, the expression fails
-- for each value that is not null. Not when it is planned, which would concern all rows of a table; nor this function: it is called for
-- the columns of all tables in one statement.
CREATE OR REPLACE FUNCTION notifier.json_expression(value text, type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base oid := type;
    kind "char";
    element oid;
    fields text;
    places text;
BEGIN
    IF notifier.is_plain_type(type) THEN
        RETURN value;
    END IF;
    IF (
        WITH RECURSIVE part (type, level) AS (
            SELECT json_expression.type, 1
            UNION ALL
            SELECT inner_part.type, p.level + 1
            FROM part AS p JOIN pg_type AS t ON t.oid = p.type
            CROSS JOIN LATERAL (
                SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype WHEN t.typcategory = 'A' THEN t.typelem END
                UNION ALL
                SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            ) AS inner_part (type)
            WHERE p.type >= :first_user_oid AND inner_part.type <> 0 AND p.level <= 60
        )
        SELECT count(*) > 2000 OR max(few.level) > 60 FROM (SELECT part.level FROM part LIMIT 2001) AS few
    ) THEN
        RETURN format('CASE WHEN num_nulls(%1$s) = 0 THEN 1 / num_nulls(%1$s) END', value);
    END IF;
    LOOP
        SELECT t.typtype, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END,
               CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE base END
        INTO kind, element, base
        FROM pg_type AS t WHERE t.oid = base;
        IF NOT FOUND THEN  -- the transaction's snapshot is older than the type
            RAISE undefined_object;
        END IF;
        EXIT WHEN kind <> 'd';
    END LOOP;
    IF kind = 'c' THEN
        -- By their places: `value.name` calls a function `name` where the attribute is gone, and `to_json` runs
        -- casts. The type may be altered at any moment: where an attribute has another type then, its expression
        -- fails.
        SELECT string_agg(format('%s AS %I', CASE WHEN notifier.is_plain_type(c.type)
                   THEN format('CASE 1 / (pg_typeof(c.a%1$s)::oid = %2$L)::int WHEN 1 THEN c.a%1$s END', c.place, c.type)
                   ELSE notifier.json_expression(format('c.a%s', c.place), c.type) END, c.name), ', ' ORDER BY c.place),
               string_agg(format('a%s', c.place), ', ' ORDER BY c.place)
        INTO fields, places
        FROM (
            SELECT a.name, a.type, row_number() OVER (ORDER BY a.number) AS place
            FROM pg_type AS t, notifier.columns_of(t.typrelid) AS a
            WHERE t.oid = base
        ) AS c;
        RETURN format('CASE WHEN num_nulls(%1$s) = 0 THEN (SELECT row_to_json(r.*) FROM (SELECT %2$s%3$s) AS r) END', value, fields,
                      CASE WHEN places IS NOT NULL THEN format(' FROM (SELECT (%s).*) AS c (%s)', value, places) END);
    ELSIF element <> 0 AND (SELECT t.typtype IN ('c', 'd') FROM pg_type AS t WHERE t.oid = element) THEN
        -- element by element, by an index of its own: `value` may hold that of an array around it. More dimensions
        -- raise division by zero here: such a change is stored partial
        RETURN format('CASE WHEN num_nulls(%1$s) = 0 THEN array_to_json(ARRAY(SELECT %2$s FROM generate_series('
                      'array_lower(%1$s, 1), array_upper(%1$s, 1) / (array_ndims(%1$s) = 1)::int) AS i%3$s ORDER BY i%3$s)) END',
                      value, notifier.json_expression(format('(%s)[i%s]', value, length(value)), element), length(value));
    END IF;
    RETURN format('CASE WHEN num_nulls(%1$s) = 0 THEN format(''%%s'', %1$s)%2$s END', value,
                  CASE WHEN element <> 0 THEN '::text[]' END);
END
$$;
