-- Which of the users $4 belong to the companies $3, pair by pair; $2 and $1 are the same as far as the
-- columns' types can hold them, for the index. What a type takes for equal is not enough: a row must
-- name both to the letter, as its messages do. Only uuids have two spellings, small and capital
-- letters: $6 and $5 are the capital ones, which a column of text may hold. The words in braces are
-- replaced.
SELECT ARRAY(
    SELECT EXISTS (
        SELECT FROM {relation} AS member
        WHERE member.{company} IN (asked.company, asked.capital)
          AND member.{member} = asked.user_id
          AND pg_catalog.to_json(member.{company}) #>> '{{}}' IN (asked.said_company, asked.said_capital)
          AND pg_catalog.to_json(member.{member}) #>> '{{}}' = asked.said_user
    )
    FROM ROWS FROM (pg_catalog.unnest($1::text[]::{company_type}[]),
                    pg_catalog.unnest($2::text[]::{member_type}[]),
                    pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]),
                    pg_catalog.unnest($5::text[]::{company_type}[]), pg_catalog.unnest($6::text[]))
         WITH ORDINALITY AS asked (company, user_id, said_company, said_user, capital, said_capital, n)
    ORDER BY asked.n
)
