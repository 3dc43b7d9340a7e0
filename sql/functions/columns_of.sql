-- The columns of a relation, or of a composite type, with their types, as the row that a trigger gets has them.
--
-- A transaction with a snapshot of its own (REPEATABLE READ, SERIALIZABLE) may be older than an ALTER TABLE: then its
-- catalogue does not have the row's columns. So there the names are those that pg_identify_object_as_address and
-- has_column_privilege find, and the types those of an expression, which PostgreSQL all looks up in its caches. It
-- fails where the owner of capture may not use the relation's schema.
CREATE OR REPLACE FUNCTION notifier.columns_of(relation oid) RETURNS TABLE(number integer, name text, type oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_name text;
    expressions text := '';
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
            expressions := expressions || format(', (%s, %L, pg_typeof((NULL::%s).%I)::oid)', n, found_name, relation::regclass, found_name);
        END IF;
    END LOOP;
    IF expressions <> '' THEN
        RETURN QUERY EXECUTE format('SELECT v.number::integer, v.name::text, v.type::oid FROM (VALUES %s) AS v (number, name, type)', substr(expressions, 3));
    END IF;
END
$$;
