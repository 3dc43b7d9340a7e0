-- Tables with columns of every kind that becomes another JSON in messages.
CREATE TYPE mood AS ENUM ('calm', 'it''s "bad"', 'über');
CREATE TYPE place AS (street text, lines text[], height numeric);
CREATE TYPE stop AS (at place, minutes integer);
CREATE DOMAIN amount AS bigint NOT NULL CHECK (VALUE > 0);
CREATE DOMAIN amounts AS amount[];

CREATE TABLE invoices (
    id bigint PRIMARY KEY,
    tenant integer,
    total numeric(10, 2) NOT NULL,
    exact numeric,
    ratio double precision,
    lines integer NOT NULL,
    small smallint,
    paid boolean NOT NULL,
    checked boolean,
    mood mood NOT NULL,
    moods mood[],
    tags text[] NOT NULL,
    grid integer[][],
    tax amount,
    parts amounts,
    ship place,
    route stop[],
    extra jsonb NOT NULL,
    note json,
    at timestamptz NOT NULL,
    local timestamp,
    day date,
    span interval,
    raw bytea,
    who uuid,
    address inet,
    "2nd-name" text,
    "class" text,
    __private text,
    secret text
);

CREATE TABLE members (id integer PRIMARY KEY, tenant integer NOT NULL, login text NOT NULL, name text);
INSERT INTO members VALUES (1, 7, 'ada', 'Ada');

CREATE TABLE reactions (
    post bigint, emoji text, tenant integer NOT NULL, created_at timestamp NOT NULL, PRIMARY KEY (post, emoji)
);
