-- The changes of one large transaction: first those that concern every company, then company by company,
-- without the companies $2. The change of a row that moved comes once for each of its two companies, and that
-- of a table with several watches once for each of them, in a row. Where one of a row's images cannot be read, its company may be
-- any: the change concerns every company, and comes for that of the other image as well.
SELECT company, id, xid::text::bigint AS xid, entity, old, new, partial, actor, at
FROM (
    SELECT c.*, coalesce(w.scope || ':', '') || CASE WHEN c.old IS NOT NULL THEN
               coalesce(to_json(w.tenant), notifier.readable_json(c.old) -> w.company) END::text AS was,
           coalesce(w.scope || ':', '') || CASE WHEN c.new IS NOT NULL THEN
               coalesce(to_json(w.tenant), notifier.readable_json(c.new) -> w.company) END::text AS became
    FROM notifier.changes AS c
    LEFT JOIN notifier.watches AS w ON w.captured_as = c.entity
    WHERE c.xid = $1::bigint::text::xid8
    OFFSET 0  -- each row is parsed only once
) AS change
CROSS JOIN LATERAL unnest(
    CASE WHEN was = became OR was IS NULL AND became IS NULL OR new IS NULL THEN ARRAY[was]
         WHEN old IS NULL THEN ARRAY[became]
         ELSE ARRAY[was, became] END
) AS company
WHERE company IS NULL OR NOT company = ANY ($2::text[]) AND octet_length(company) <= 5000  -- a longer one is no company's id
ORDER BY company NULLS FIRST, id
