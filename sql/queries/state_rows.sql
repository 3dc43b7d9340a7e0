-- The images of a company's rows in one table; what is in braces is of `state_tables.sql`.
SELECT row_to_json(r.*)::text FROM (SELECT {columns} FROM {relation} AS t{joins} WHERE {condition}) AS r
