-- The table of a name that includes the schema. Null where there is none, and where the current role has no USAGE on the schema, for which
-- `to_regclass` raises an error: the owner of the schema may revoke it, and a tenant's schema that is created again lacks it.
CREATE OR REPLACE FUNCTION notifier.relation_of(relation text) RETURNS regclass
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN to_regclass(relation);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN NULL;
END
$$;
