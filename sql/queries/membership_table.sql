-- The table that names members, with the types of its columns; `single`: none of them can have two rows.
SELECT w.relation, quote_ident(w.company) AS company, quote_ident(w.member) AS member,
       format_type(c.atttypid, -1) AS company_type,
       format_type(m.atttypid, -1) AS member_type,
       1 = (SELECT count(*) FROM notifier.watches WHERE member IS NOT NULL) AND EXISTS (
           SELECT FROM pg_index AS i
           WHERE i.indrelid = c.attrelid AND i.indisunique AND i.indpred IS NULL
             AND i.indnatts = 2 AND c.attnum = ANY (i.indkey) AND m.attnum = ANY (i.indkey)
       ) AS single
FROM notifier.watches AS w
JOIN pg_attribute AS c ON c.attrelid = to_regclass(w.relation) AND c.attname = w.company
JOIN pg_attribute AS m ON m.attrelid = to_regclass(w.relation) AND m.attname = w.member
ORDER BY w.entity <> 'Employee'
LIMIT 1
