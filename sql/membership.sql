-- Which of the users $2 belong to the companies $1, pair by pair. The words in braces are replaced.
SELECT ARRAY(
    SELECT EXISTS (
        SELECT FROM {relation} AS member
        WHERE member.{company} = asked.company AND member.{member} = asked.user_id
    )
    FROM unnest($1::text[]::{company_type}[], $2::text[]::{member_type}[])
         WITH ORDINALITY AS asked (company, user_id, n)
    ORDER BY asked.n
)
