-- Where a path leads from one row. `reached`: for each step, whether there is a value, and whether there is a row that it
-- refers to; last, whether the last row names a company. `company`: that company. The words in braces are replaced.
SELECT ARRAY[{reached}] AS reached, {company} AS company
FROM {relation} AS row{joins}
WHERE {condition}
LIMIT 1
