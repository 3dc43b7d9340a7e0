EXISTS (
    SELECT FROM {relation} AS member
    WHERE {company} IN (asked.company, asked.capital) AND {member} = asked.user_id {typed}
)
