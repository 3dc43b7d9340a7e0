        key := coalesce(became, was) ->> {start};
        members := CASE WHEN key = coalesce(was, became) ->> {start}
                             AND notifier.are_tables_of({owner}, ARRAY[{relations}])
                             AND current_setting('transaction_isolation') = 'read committed'
                        THEN {before} || {member} || notifier.path_company({watch}, 1, key)::text || ',' END;
        IF pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.<>) 'pg_catalog, pg_temp' THEN
            RAISE undefined_object;
        END IF;
