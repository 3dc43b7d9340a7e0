-- Where a path leads from the row of {relation} that {condition} names: of each step, whether there is a value, and a row
-- that it leads to; at last whether that names a company. The words in braces are replaced.
SELECT ARRAY[{reached}] AS reached, {company} AS company
FROM {relation} AS row{joins}
WHERE {condition}
LIMIT 1
