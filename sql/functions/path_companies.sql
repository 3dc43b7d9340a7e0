-- The companies that the paths of a table lead to for the rows `was` and `became`, each as JSON members to be added to
-- the row's image: ',"->Booking":7'. With them the snapshot of a transaction that has one for all its statements.
-- `paths`: pairs of a watch and the column that its path begins with.
CREATE OR REPLACE FUNCTION notifier.path_companies(was json, became json, paths text[]) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    company json;
    of_was text;
    of_became text;
BEGIN
    FOR n IN 1 .. cardinality(paths) BY 2 LOOP
        company := CASE WHEN was IS NULL AND became IS NULL THEN NULL
                        ELSE notifier.resolve_path(paths[n], 1, CASE WHEN became IS NULL THEN was ELSE became END -> paths[n + 1]) END;
        of_became := concat(of_became, ',', to_json('->' || paths[n]), ':', coalesce(company, 'null'));
        of_was := concat(of_was, ',', to_json('->' || paths[n]), ':', coalesce(
            CASE WHEN (was -> paths[n + 1])::text <> (became -> paths[n + 1])::text
                 THEN notifier.resolve_path(paths[n], 1, was -> paths[n + 1]) ELSE company END, 'null'));
    END LOOP;
    RETURN CASE current_setting('transaction_isolation') WHEN 'read committed' THEN ARRAY[of_was, of_became]
                ELSE ARRAY[concat(of_was, ',"->snapshot":', to_json(pg_current_snapshot()::text)),
                           concat(of_became, ',"->snapshot":', to_json(pg_current_snapshot()::text))] END;
END
$$;
