-- The sample: 100 companies with 100 events each; in the first ten all users are employees, in the others ten users.
-- Ids are numbers in hexadecimal, so that a client can name a row without a query.
INSERT INTO companies (id, name)
SELECT lpad(to_hex(c), 32, '0')::uuid, 'Company ' || c FROM generate_series(1, 100) AS c;

INSERT INTO employees (company_id, user_id, name)
SELECT lpad(to_hex(c), 32, '0')::uuid, 'user-' || u, 'User ' || u
FROM generate_series(1, 100) AS c, generate_series(1, 5000) AS u
WHERE c <= 10 OR u <= 10;

INSERT INTO events (id, company_id, title, starts_at, ends_at)
SELECT lpad(to_hex(e), 32, '0')::uuid, lpad(to_hex((e - 1) / 100 + 1), 32, '0')::uuid, 'change 0',
       timestamptz '2026-11-23 09:00Z', timestamptz '2026-11-23 10:00Z'
FROM generate_series(1, 10000) AS e;
