EXISTS (
    SELECT FROM {relation} AS member{joins}
    WHERE {company} IN (pair.company, pair.capital) AND {member} = pair.user_id {typed}{conditions}{scope}
)
