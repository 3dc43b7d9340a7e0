-- The company, as JSON, that a row of step `step` leads to, the row being found by its key. Null: there is no such
-- row; JSON's null: it has no company.
--
-- It belongs to the owner of the tables on the path: PostgreSQL's planner runs code in their indexes, statistics and
-- policies with the rights of the role that reads them, and for their owner that is no other code than always.
-- `migrate` writes the statements below `-- paths`.
--
-- Rows are found by unique keys. Without enable_seqscan = off the planner reads a table of up to some hundreds of
-- rows as a whole, which takes longer: it counts the pages of the index as if they were on disk.
CREATE OR REPLACE FUNCTION notifier.path_company(watch text, step integer, key text) RETURNS json
LANGUAGE plpgsql STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off SET enable_seqscan = off
AS $$
BEGIN
    -- paths
:paths
    -- end
    RAISE undefined_object;
END
$$;
