-- The companies that the paths of a table lead to, as the beginning of both images of a change: '{"->Booking":7,'.
-- Null where the row before led along another way, or a company is not found so simply: `path_images` has both images
-- then.
--
-- The tables are locked, and the search_path is looked at, as in `resolve_path` and for the same reasons. `migrate`
-- writes the statements below `-- paths`.
CREATE OR REPLACE FUNCTION notifier.path_members(entity text, was json, became json) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key text;
    members text;
BEGIN
    -- paths
:paths
    -- end
    RETURN NULL;
END
$$;
