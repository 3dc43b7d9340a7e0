-- The columns of a relation, or of a composite type, with their types, as the row that a trigger gets has them.
--
-- A transaction with a snapshot of its own (REPEATABLE READ, SERIALIZABLE) may be older than an ALTER TABLE: then its
-- catalogue does not have the row's columns. So there the names are those that pg_identify_object_as_address and
-- has_column_privilege find, and the types those of an expression, which PostgreSQL all looks up in its caches. It
-- fails where the owner of capture may not use the relation's schema, and where the snapshot does not have the relation.
--
-- Nothing but the write's own table is locked: others, composite types and schemas may be altered while the expression
-- waits for their lock. So it takes columns by their places: `value.name` calls a function `name` where the column is
-- gone, and a cast of the application with it. Its value is that of an empty array: a domain that has taken the type's
-- name would be checked for any other. What is not the relation's row has other columns, and fails.
CREATE OR REPLACE FUNCTION notifier.columns_of(relation oid) RETURNS TABLE(number integer, name text, type oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_name text;
    expressions text := '';
    places text := '';
BEGIN
    IF pg_trigger_depth() = 0 OR current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        RETURN QUERY SELECT a.attnum::integer, a.attname::text, a.atttypid FROM pg_attribute AS a
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped;
        RETURN;
    END IF;
    FOR n IN 1 .. 1600 LOOP
        SELECT object_names[3] INTO found_name FROM pg_identify_object_as_address('pg_class'::regclass, relation, n);
        EXIT WHEN found_name IS NULL;
        IF has_column_privilege(relation, n::smallint, 'SELECT') IS NOT NULL THEN  -- null: it was dropped
            expressions := expressions || format(', (%1$s, %2$L, pg_typeof(c.a%1$s)::oid)', n, found_name);
            places := places || format(', a%s', n);
        END IF;
    END LOOP;
    IF expressions <> '' THEN
        RETURN QUERY EXECUTE format(
            'SELECT v.number::integer, v.name::text, v.type::oid FROM (SELECT (ARRAY[]::%1$s[])[1]) AS r (r)'
            ' CROSS JOIN LATERAL (SELECT 1 / (pg_typeof(r.r)::oid = $1)::int, (r.r).*) AS c (is_row%2$s)'
            ' CROSS JOIN LATERAL (VALUES %3$s) AS v (number, name, type) WHERE c.is_row = 1',
            relation::regclass, places, substr(expressions, 3))
        USING (SELECT c.reltype FROM pg_class AS c WHERE c.oid = relation);
        IF NOT FOUND THEN
            RAISE undefined_object;
        END IF;
    END IF;
END
$$;
