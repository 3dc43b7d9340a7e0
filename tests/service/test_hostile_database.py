"""Roles, functions and queries that mean no good, or are merely odd, in the database that is watched."""

from __future__ import annotations

import pytest

from tests.conftest import Connect, Serve
from tests.databases import Database
from tests.service.calendars import Calendar

IMPOSTORS = """
CREATE FUNCTION public.to_json(text) RETURNS json LANGUAGE plpgsql AS $$ {trap} $$;
CREATE FUNCTION public.to_json(uuid) RETURNS json LANGUAGE plpgsql AS $$ {trap} $$;
CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$ {trap} $$;
CREATE FUNCTION public.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$ {trap} $$;
CREATE FUNCTION public.concat_ws(text, text, bigint, bigint) RETURNS text
    LANGUAGE plpgsql AS $$ {trap} $$;
CREATE FUNCTION public.count() RETURNS bigint LANGUAGE plpgsql AS $$ {trap} $$;
"""
TRAP = (
    "BEGIN PERFORM set_config('role', 'app', false); RAISE EXCEPTION 'run by %', current_user; END"
)


@pytest.mark.parametrize("pooled", [False, True], ids=["directly", "through a pooler"])
async def test_b17_a_function_in_public_is_never_run_by_the_service(
    pooled: bool, database: Database, serve: Serve, connect: Connect
) -> None:
    """Many databases let everybody create there; an exact type would be preferred to `anyelement`."""
    # Two spellings of one address: what is asked by the first one might go through a pooler.
    direct = database.dsn.replace("127.0.0.1", "localhost") if pooled else database.dsn
    service = await serve(database, listen_database_url=direct)
    calendar = Calendar(database)
    company = await calendar.company("u1", "u2")
    await service.stop()
    await database.execute("GRANT CREATE ON SCHEMA public TO app")
    app = await database.connect(app=True)
    await app.execute(IMPOSTORS.format(trap=TRAP))
    await service.start()
    await service.ready()
    client = await connect(service, "u1", company)
    assert not (await (await connect(service, "u3")).set_company(company))["Success"]
    again = await connect(service, "u1", company, 0, client.epoch)
    await again.received(lambda messages: messages[-1].get("Position") == 2)
    await calendar.event(company)
    await client.expect("EventCreated")
    await database.execute("UPDATE notifier.log SET system = 'another'")  # an epoch begins
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'notifier%'"
    )
    await client.next("Resync")
    await service.ready()
    assert "run by" not in service.log()
