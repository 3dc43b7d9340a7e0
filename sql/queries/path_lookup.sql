    IF watch = {watch} AND step = {step} THEN
        RETURN {company} WHERE t1.{key} OPERATOR(pg_catalog.=) path_company.key::{key_type};
    END IF;
