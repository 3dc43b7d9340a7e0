-- Whether row_to_json renders values of a type without running application code.
--
-- For a type that PostgreSQL does not bring it looks for a cast to json, which any owner of the type can
-- create, and runs its function as the role that runs row_to_json. Left are PostgreSQL's own types, domains over
-- them and arrays of them, and types of extensions: those belong to a superuser, and so would their casts. One that is
-- nested deeper than 30 levels counts as not plain: each session looks at the types of all watched columns when it first writes.
CREATE OR REPLACE FUNCTION notifier.is_plain_type(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    inner_type oid := type;
BEGIN
    FOR level IN 1 .. 30 LOOP
        EXIT WHEN inner_type IS NULL;
        type := inner_type;
        IF type < :first_user_oid THEN
            RETURN true;
        END IF;
        SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype
                    WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem END
        INTO inner_type
        FROM pg_type AS t WHERE t.oid = type;
    END LOOP;
    RETURN inner_type IS NULL AND EXISTS (
        SELECT FROM pg_type AS t
        JOIN pg_roles AS owner ON owner.oid = t.typowner AND owner.rolsuper
        JOIN pg_depend AS d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
        WHERE t.oid = type AND t.typtype <> 'c'
    ) AND NOT EXISTS (
        SELECT FROM pg_cast AS c
        JOIN pg_proc AS p ON p.oid = c.castfunc
        JOIN pg_language AS l ON l.oid = p.prolang
        WHERE c.castsource = type AND c.casttarget = 'json'::regtype AND l.lanname NOT IN ('c', 'internal')
    );
END
$$;
