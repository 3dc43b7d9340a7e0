-- The companies that the paths of a table lead to for the rows `was` and `became`, each as JSON members to be added to
-- the row's image: ',"->Booking":7'. With them the snapshot of a transaction that has one for all its statements. `paths`: pairs of a watch and the column that its path begins with.
CREATE OR REPLACE FUNCTION notifier.path_companies(was json, became json, paths text[]) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_was json;
    key_became json;
    company json;
    of_was text := '';
    of_became text := '';
BEGIN
    FOR n IN 1 .. cardinality(paths) BY 2 LOOP
        key_was := was -> paths[n + 1];
        key_became := became -> paths[n + 1];
        IF key_was IS NULL AND was IS NOT NULL OR key_became IS NULL AND became IS NOT NULL THEN
            RAISE undefined_column;
        END IF;
        company := notifier.resolve_path(paths[n], 1, coalesce(key_became, key_was) #>> '{}');
        of_became := concat(of_became, ',', to_json('->' || paths[n]), ':', coalesce(company, 'null'));
        IF key_was::text <> key_became::text THEN
            company := notifier.resolve_path(paths[n], 1, key_was #>> '{}');
        END IF;
        of_was := concat(of_was, ',', to_json('->' || paths[n]), ':', coalesce(company, 'null'));
    END LOOP;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        company := to_json(pg_current_snapshot()::text);
        of_was := concat(of_was, ',"->snapshot":', company);
        of_became := concat(of_became, ',"->snapshot":', company);
    END IF;
    RETURN ARRAY[of_was, of_became];
END
$$;
