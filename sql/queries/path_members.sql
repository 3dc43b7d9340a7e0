    IF entity = {entity} THEN
        LOCK TABLE {tables} IN ACCESS SHARE MODE NOWAIT;
{companies}        RETURN members;
    END IF;
