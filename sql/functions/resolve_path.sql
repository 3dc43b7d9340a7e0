-- The company, as JSON, that the value `key` leads to, which names a row of step `step` on the path of a watch. Null
-- or JSON's null: none. Fails where it cannot be determined, and where there is no value, not even JSON's null.
--
-- The tables are locked against being renamed and replaced before anything reads them, and must be tables of the role
-- that reads them: another role's table or view with their name would run its code. Without waiting: the
-- application's write would wait as well. `migrate` writes the locks below `-- paths`.
--
-- Code that the planner runs in `path_company` may set another search_path, which outlives the functions' own: the next
-- expression would find operators of the tables' owner, and run them as the owner of capture. So it fails here.
--
-- Few expressions, for the reason that `capture.sql` gives.
CREATE OR REPLACE FUNCTION notifier.resolve_path(watch text, step integer, key json) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    company json;
BEGIN
    -- paths
:paths
    -- end
    RAISE undefined_object;
END
$$;
