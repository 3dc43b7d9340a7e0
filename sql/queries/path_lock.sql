    IF watch = {watch} THEN
        LOCK TABLE {tables} IN ACCESS SHARE MODE NOWAIT;
        IF notifier.are_tables_of({owner}, ARRAY[{relations}]) THEN
            enforced := {enforced};
        END IF;
    END IF;
