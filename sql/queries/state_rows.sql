-- The images of a company's rows in one table; what is in braces is of `state_tables.sql`. Null from the row on with which they
-- are more than the limit of bytes: a single one may be a GB.
SELECT CASE WHEN sum(octet_length(image)) OVER (ROWS UNBOUNDED PRECEDING) <= {limit} THEN image END
FROM (
    SELECT row_to_json(r.*)::text AS image FROM (SELECT {columns} FROM {relation} AS t{joins} WHERE {condition}) AS r
    OFFSET 0  -- the image is made once
) AS made
