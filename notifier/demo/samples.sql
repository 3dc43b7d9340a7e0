-- What `notifier demo` shows: two companies, their people, a week of events around today.
INSERT INTO companies (name, time_zone) VALUES ('Northwind Studio', 'Europe/Berlin');
INSERT INTO companies (name, time_zone, created_at)
VALUES ('Harbor & Sons', 'America/New_York', now() + interval '1 second');

INSERT INTO employees (company_id, user_id, name, email, job_title)
SELECT c.id, p.user_id, p.name, p.user_id || '@example.com', p.job_title
FROM companies AS c
JOIN (VALUES ('Northwind Studio', 'ann', 'Ann Baker', 'Producer'),
             ('Northwind Studio', 'ben', 'Ben Okafor', 'Designer'),
             ('Northwind Studio', 'chloe', 'Chloe Lindqvist', 'Engineer'),
             ('Northwind Studio', 'dai', 'Dai Tanaka', 'Editor'),
             ('Harbor & Sons', 'ann', 'Ann Baker', 'Adviser'),
             ('Harbor & Sons', 'eve', 'Eve Moreau', 'Captain'),
             ('Harbor & Sons', 'finn', 'Finn Harbor', 'Owner')) AS p (company, user_id, name, job_title)
    ON p.company = c.name;

INSERT INTO events (company_id, title, description, location, starts_at, ends_at, all_day, organizer_id)
SELECT c.id, e.title, e.description, e.location,
       (date_trunc('week', now() AT TIME ZONE c.time_zone) + e.starts) AT TIME ZONE c.time_zone,
       (date_trunc('week', now() AT TIME ZONE c.time_zone) + e.starts + e.lasts) AT TIME ZONE c.time_zone,
       e.lasts >= interval '1 day', o.id
FROM companies AS c
JOIN (VALUES
    ('Northwind Studio', 'ann', 'Week ahead', 'What is due, and who is away', 'Kitchen table', interval '9 hours', interval '45 minutes'),
    ('Northwind Studio', 'ben', 'Sketch review', NULL, 'Studio 2', interval '1 day 13 hours', interval '90 minutes'),
    ('Northwind Studio', 'chloe', 'Pairing', 'Bring a question', 'Quiet room', interval '2 days 10 hours', interval '2 hours'),
    ('Northwind Studio', 'dai', 'Rough cut', NULL, 'Screening room', interval '3 days 15 hours', interval '1 hour'),
    ('Northwind Studio', 'ann', 'Client visit', NULL, 'Front desk', interval '4 days 11 hours', interval '1 hour'),
    ('Northwind Studio', 'ann', 'Summer party', NULL, 'Roof', interval '5 days', interval '1 day'),
    ('Harbor & Sons', 'eve', 'Tide briefing', NULL, 'Pier 4', interval '6 hours', interval '30 minutes'),
    ('Harbor & Sons', 'finn', 'Accounts', NULL, 'Back office', interval '2 days 14 hours', interval '1 hour')
) AS e (company, organizer, title, description, location, starts, lasts) ON e.company = c.name
JOIN employees AS o ON o.company_id = c.id AND o.user_id = e.organizer;
