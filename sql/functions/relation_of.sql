-- The table of this name, which has its schema. Null where there is none, and where the current role may not use the schema, for which
-- `to_regclass` raises: its owner may take that right away, and makes a tenant's schema again without it.
CREATE OR REPLACE FUNCTION notifier.relation_of(relation text) RETURNS regclass
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN to_regclass(relation);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN NULL;
END
$$;
