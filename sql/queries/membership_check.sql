-- Which of the users $3 belong to the companies $1, pair by pair. A row must name both to the letter, as its messages
-- do; only uuids have two spellings, in small and capital letters: $2 are the capital ones, which a column of text
-- may hold; $4 the companies' scopes. The parameters after them hold the same values as far as the types of a table's
-- columns can, for its index. The words in braces are replaced; `rows` has one `membership_rows.sql` for each table.
-- `remains` is evaluated after the planner has run code of the tables' owners.
--
-- Null where the tables are not those that the query was compiled for: then no row is compared, since a column could have
-- a type of the application's now, and a cast of it would run.
SELECT CASE WHEN now.signature OPERATOR(pg_catalog.=) {expected} THEN ARRAY(
    SELECT {rows}
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]),
                    pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]){arrays})
         WITH ORDINALITY AS pair (company, capital, user_id, scope{names}, n)
    ORDER BY pair.n
) END, now.signature, ARRAY({remains})
FROM (SELECT ({signature}) AS signature OFFSET 0) AS now
