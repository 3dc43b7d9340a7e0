-- A function that executes a query once, with null for each parameter, with the rights of a role and no others: code
-- in an index of a table that it reads cannot leave the role, as it could after SET ROLE. The transaction is rolled
-- back. PREPARE derives the types of the parameters from the query, and would outlive a rollback.
CREATE FUNCTION notifier.trial(query text, nulls text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    EXECUTE pg_catalog.format('PREPARE trial AS %s', query);
    BEGIN
        EXECUTE pg_catalog.format('EXECUTE trial (%s)', nulls);
    EXCEPTION WHEN OTHERS THEN
        EXECUTE 'DEALLOCATE trial';
        RAISE;
    END;
    EXECUTE 'DEALLOCATE trial';
END
$$;
GRANT USAGE, CREATE ON SCHEMA notifier TO {role};
ALTER FUNCTION notifier.trial(text, text) OWNER TO {role}
