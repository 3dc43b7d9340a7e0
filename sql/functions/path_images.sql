-- The images of a change with the companies that the paths of its table lead to, where `path_members` does not find
-- them: a row now leads along another way, has no company, or led to a row that this transaction has deleted. With
-- them the snapshot of a transaction that has one for all its statements. Fails where one of them cannot be read: a company
-- that is taken from the other one may be another one. `paths`: pairs of a watch and the column that its path begins with.
CREATE OR REPLACE FUNCTION notifier.path_images(was json, became json, paths text[]) RETURNS json[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    readable_was CONSTANT json := notifier.readable_json(was);
    readable_became CONSTANT json := notifier.readable_json(became);
    company json;
    of_was text := '{';
    of_became text := '{';
BEGIN
    IF readable_was IS NULL AND was IS NOT NULL OR readable_became IS NULL AND became IS NOT NULL THEN
        RAISE statement_too_complex;
    END IF;
    FOR n IN 1 .. cardinality(paths) BY 2 LOOP
        company := CASE WHEN was IS NULL AND became IS NULL THEN NULL
                        ELSE notifier.resolve_path(paths[n], 1, CASE WHEN became IS NULL THEN readable_was ELSE readable_became END
                                                                -> paths[n + 1]) END;
        of_became := concat(of_became, to_json('->' || paths[n]), ':', coalesce(company, 'null'), ',');
        of_was := concat(of_was, to_json('->' || paths[n]), ':', coalesce(
            CASE WHEN (readable_was -> paths[n + 1])::text <> (readable_became -> paths[n + 1])::text
                 THEN notifier.resolve_path(paths[n], 1, readable_was -> paths[n + 1]) ELSE company END, 'null'), ',');
    END LOOP;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        of_was := concat(of_was, '"->snapshot":', to_json(pg_current_snapshot()::text), ',');
        of_became := concat(of_became, '"->snapshot":', to_json(pg_current_snapshot()::text), ',');
    END IF;
    RETURN ARRAY[(of_was || right(was::text, -1))::json, (of_became || right(became::text, -1))::json];
END
$$;
