    IF watch = {watch} AND step = {step} THEN
        RETURN (SELECT {company}
                FROM {tables}
                WHERE t1.{key} OPERATOR(pg_catalog.=) path_company.key::{key_type});
    END IF;
