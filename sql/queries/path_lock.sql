    IF watch = {watch} THEN
        LOCK TABLE {tables} IN ACCESS SHARE MODE NOWAIT;
        company := CASE WHEN key::text = 'null' THEN NULL
                        WHEN key IS NOT NULL AND notifier.are_tables_of({owner}, ARRAY[{relations}])
                        THEN coalesce(notifier.path_company(watch, step, key #>> '{{}}'),
                                      notifier.vanished_company(watch, step, key #>> '{{}}', {enforced}))
                        ELSE notifier.vanished_company(NULL, NULL, NULL, NULL) END;
        IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) 'pg_catalog, pg_temp' THEN
            RAISE undefined_object;
        END IF;
        RETURN company;
    END IF;
