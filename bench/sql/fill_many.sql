-- W3: 90,000 more events: 1,000 in each company in total.
INSERT INTO events (id, company_id, title, starts_at, ends_at)
SELECT lpad(to_hex(e), 32, '0')::uuid, lpad(to_hex(e % 100 + 1), 32, '0')::uuid, 'change 0',
       timestamptz '2026-11-23 09:00Z', timestamptz '2026-11-23 10:00Z'
FROM generate_series(10001, 100000) AS e;
