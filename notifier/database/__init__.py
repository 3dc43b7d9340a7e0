"""PostgreSQL: connections, queries, and the schema that `migrate` manages."""
