-- The type as which `state_where` sees values of a type: PostgreSQL's own, the base of a domain over one, an enum, or
-- an array of either; null where code of the application could run when an expression has such a value.
--
-- That is an input function that evaluates a domain's check, or a cast, which the owner of a type can create and
-- PostgreSQL uses by itself.
CREATE OR REPLACE FUNCTION notifier.bounding_type(type oid) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base oid := type;
    element oid;
BEGIN
    FOR level IN 1 .. 30 LOOP
        EXIT WHEN NOT (SELECT t.typtype = 'd' FROM pg_type AS t WHERE t.oid = base);
        SELECT t.typbasetype INTO base FROM pg_type AS t WHERE t.oid = base;
    END LOOP;
    IF base < :first_user_oid THEN
        RETURN base;
    END IF;
    SELECT CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
    INTO element FROM pg_type AS t WHERE t.oid = base;
    RETURN (
        SELECT base FROM pg_type AS t
        WHERE t.oid = element AND t.typtype = 'e'
          AND NOT EXISTS (SELECT FROM pg_cast AS c WHERE c.castsource IN (base, element))
    );
END
$$;
