"""An operator's drill: what is broken fires its alert, by the metrics of the real service, and its run book mends it.

The commands that mend are those of the run books, as they stand there. Only for `systemctl` and `certbot` there are
stand-ins, which do to this service, this NATS and this certificate what the real ones do.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate

from notifier.database.schema import migrate
from notifier.demo.programs import binaries
from tests.blocks import blocks
from tests.conftest import Serve
from tests.databases import Connection, Database
from tests.installed import needs
from tests.natsd import NatsServer
from tests.postgres.relays import new_company, new_event, rewrite_event
from tests.services import ROOT, SECRET, Service, environment
from tests.waiting import DEADLINE_SECONDS, until

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
TRIGGER = "NotifierWatchProblems.md"
CERTIFICATE = "NotifierCertificateExpires.md"
LOG = "NotifierLogFilling.md"
RELAY = "NotifierNoRelay.md"
NATS = "NotifierNatsUnused.md"
EXPIRY = "notifier_certificate_expiry_timestamp_seconds"

pytestmark = needs(shutil.which("promtool"), "no promtool")


class Operator:
    """Reads the metrics of a service as Prometheus does, and evaluates the alert rules with them."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self._folder = folder
        shutil.copy(ALERTS, folder / "alerts.yml")

    async def metrics(self) -> dict[str, float]:
        """Each series and its value."""
        lines = (await self.service.get("/metrics")).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("notifier_"))
        return {series: float(value) for series, value in pairs}

    async def value(self, series: str) -> float:
        return (await self.metrics())[series]

    async def sees(self, series: str, value: float) -> None:
        """Returns when the series has that value."""

        async def shows() -> bool:
            return await self.value(series) == value

        await until(shows)

    async def firing(self, before: dict[str, float] | None = None) -> set[str]:
        """The alerts that fire if the metrics stay as they are now for two hours, after those `before`."""
        series = "\n".join(self._inputs(await self.metrics(), before or {}))
        names = re.findall(r"- alert: (\w+)", ALERTS.read_text())
        samples = ", ".join(f"{{labels: '{{alertname=\"{name}\"}}', value: 1}}" for name in names)
        expression = 'count by (alertname) (ALERTS{alertstate="firing"})'
        (self._folder / "test.yml").write_text(
            "rule_files: [alerts.yml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n"
            f"    input_series:\n{series}\n    promql_expr_test:\n"
            f"      - {{expr: '{expression}', eval_time: 2h, exp_samples: [{samples}]}}\n"
        )
        # Not all of them fire, so the test fails and shows those that do.
        tested = await asyncio.to_thread(
            subprocess.run,
            ["promtool", "test", "rules", "test.yml"],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        output = tested.stdout + tested.stderr
        assert "exp:" in output, output
        return set(re.findall(r'alertname="(\w+)"', output.split("got:")[1]))

    async def fires(self, alerts: set[str], before: dict[str, float] | None = None) -> None:
        """Returns when these alerts fire: a moment without a link or a relay is not a minute."""
        found: set[str] = set()

        async def do_fire() -> bool:
            nonlocal found
            found = await self.firing(before)
            return found == alerts

        try:
            await until(do_fire)
        except TimeoutError:
            raise AssertionError(found) from None

    def _inputs(self, metrics: dict[str, float], before: dict[str, float]) -> Iterator[str]:
        for series, value in metrics.items():
            name, _, labels = series.partition("{")
            given = f'job="notifier",{labels.rstrip("}")}'.rstrip(",")
            # promtool's clock begins at 0: two hours later is now.
            shown = value - time.time() + 7200 if name == EXPIRY else value
            past = f"{before[series]:.3f}x1 " if series in before and name != EXPIRY else ""
            values = f"{past}{shown:.3f}x125"
            yield f"      - {{series: '{name}{{{given}}}', values: '{values}'}}"


def commands(page: str) -> list[str]:
    """The commands of a run book that mend what its alert reports."""
    found = [each.text for each in blocks(RUNBOOKS / page) if each.heading == "What to do"]
    return "\n".join(found).splitlines()


class Terminal:
    """A shell with the settings of a node, for the commands of run books."""

    def __init__(self, place: Path, **settings: object) -> None:
        self._place = place
        programs = place / "programs"
        programs.mkdir()
        for name, program in (
            ("notifier", f"{sys.executable} -m notifier"),
            ("psql", str(binaries() / "psql")),
        ):
            (programs / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (programs / name).chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        self._environment = environment({"jwt_secret": SECRET, **settings}) | {"PATH": path}

    async def follow(
        self, page: str, stand_ins: Mapping[str, Callable[[], Awaitable[None]]] | None = None
    ) -> str:
        """Runs the commands of a run book, of which only `check` may fail; returns what they print.

        `stand_ins` takes the place of commands. PID is the first one of the answer before. What has been open for ten
        minutes in the run book has been open for a moment here.
        """
        actions, printed = dict(stand_ins or {}), [""]
        for line in commands(page):
            command = line.partition("  #")[0].strip()
            if command in actions:
                await actions.pop(command)()
                continue
            if "(PID)" in command:
                pids = re.findall(r"^ *(\d+) \|", printed[-1], re.MULTILINE)
                assert pids, printed
                command = command.replace("(PID)", f"({pids[0]})")
            status, output = await self._run(command.replace("interval '10 min'", "interval '0'"))
            assert status == 0 or command.startswith("notifier check"), (command, output)
            printed.append(output)
        assert not actions, f"{page} has no such command"
        return "".join(printed)

    async def _run(self, command: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self._place,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(DEADLINE_SECONDS * 2):
            output, _ = await process.communicate()
        return process.returncode, output.decode()


def test_the_drill_runs_the_commands_of_each_run_book_that_has_some() -> None:
    having = {page.name for page in RUNBOOKS.glob("*.md") if commands(page.name)}
    assert having == {TRIGGER, CERTIFICATE, LOG, RELAY, NATS}


class Certificate:
    """The certificate of the service, which can be renewed."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.certfile, self.keyfile = folder / "cert.pem", folder / "key.pem"

    def issue(self, days: float) -> None:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        issued = self._authority.issue_cert("127.0.0.1", not_after=end)
        issued.private_key_pem.write_to_path(self.keyfile)
        issued.cert_chain_pems[0].write_to_path(self.certfile)

    async def renew(self) -> None:
        """What `certbot renew` does."""
        self.issue(90)

    @property
    def expiry(self) -> float:
        certificate = load_pem_x509_certificate(self.certfile.read_bytes())
        return certificate.not_valid_after_utc.timestamp()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    certificate = Certificate(tmp_path)
    certificate.issue(90)
    return certificate


@pytest.fixture
async def operator(
    database: Database, serve: Serve, tmp_path: Path, certificate: Certificate
) -> Operator:
    """An operator of a service that is ready and has a log of 1 MiB; no alert fires."""
    await migrate(database.dsn, max_log_bytes=1024**2)
    service = await serve(
        database,
        ready=False,
        max_log_bytes=1024**2,
        ssl_certfile=certificate.certfile,
        ssl_keyfile=certificate.keyfile,
    )
    service.http = service.http.replace("http:", "https:")
    await service.ready()
    operator = Operator(service, tmp_path)
    await operator.sees("notifier_relay", 1)
    await operator.sees("notifier_log_limit_bytes", 1024**2)
    await operator.fires(set())
    return operator


@pytest.fixture
def terminal(database: Database, tmp_path: Path, certificate: Certificate) -> Terminal:
    return Terminal(
        tmp_path,
        database_url=database.dsn,
        max_log_bytes=1024**2,
        ssl_certfile=certificate.certfile,
        ssl_keyfile=certificate.keyfile,
    )


@pytest.mark.slow
async def test_a_disabled_trigger_fires_and_is_mended(
    database: Database, operator: Operator, terminal: Terminal
) -> None:
    await database.execute("ALTER TABLE events DISABLE TRIGGER notifier_capture")
    await operator.sees("notifier_watch_problems", 1)
    await operator.sees("notifier_ready", 0)
    await operator.fires({"NotifierNotReady", "NotifierWatchProblems"})
    printed = await terminal.follow(TRIGGER)
    assert "NOT SOUND" in printed
    assert "notifier_capture" in printed
    await operator.sees("notifier_watch_problems", 0)
    await operator.sees("notifier_ready", 1)
    await operator.fires(set())
    company = await new_company(database)
    event = await new_event(database, company)
    await database.relayed()
    assert await has_message(database, event)


async def has_message(database: Database, event: str) -> bool:
    found: bool = await database.fetchval(
        "SELECT EXISTS (SELECT FROM notifier.messages WHERE body ->> 'Data' LIKE '%' || $1 || '%')",
        event,
    )
    return found


@pytest.mark.slow
async def test_a_certificate_that_expires_or_has_expired_fires_and_is_renewed(
    operator: Operator, terminal: Terminal, certificate: Certificate
) -> None:
    async def reload() -> None:
        operator.service.send(signal.SIGHUP)

    for days in (3, -1 / 24):  # -1 / 24: an hour ago
        certificate.issue(days)
        await reload()
        await operator.sees(EXPIRY, certificate.expiry)
        await operator.fires({"NotifierCertificateExpires"})
        printed = await terminal.follow(
            CERTIFICATE,
            {"certbot renew": certificate.renew, "systemctl reload notifier": reload},
        )
        assert printed.startswith("notAfter=")
        assert printed.count("\n") == 1, f"check has found something:\n{printed}"
        await operator.sees(EXPIRY, certificate.expiry)
        await operator.fires(set())


@pytest.mark.slow
async def test_changes_that_pile_up_behind_an_open_transaction_fire_and_ending_it_mends(
    database: Database, operator: Operator, terminal: Terminal
) -> None:
    app = await database.connect(app=True)
    company = await new_company(app)
    await app.execute("BEGIN")
    await new_event(app, company)
    writer, event = await database.connect(), await new_event(database, company)
    for _ in range(
        8
    ):  # many changes, and a message for each transaction: what is pruned slowly stays small
        await rewrite_event(writer, event, 100)

    async def fills() -> bool:
        return await operator.value("notifier_log_bytes") > 0.8 * 1024**2

    await until(fills)
    await operator.fires({"NotifierLogFilling"})
    printed = await terminal.follow(LOG)
    assert "the log" in printed, printed
    await until(lambda: ended(app))

    async def has_room() -> bool:
        await new_event(database, company)  # the relay maintains the log while there are changes
        return not await fills()

    await until(has_room)
    await operator.fires(set())


async def ended(app: Connection) -> bool:
    return app.is_closed()


@pytest.mark.slow
async def test_a_frozen_relay_fires_and_another_node_takes_over(
    database: Database, operator: Operator, terminal: Terminal, serve: Serve, tmp_path: Path
) -> None:
    frozen = operator.service
    (tmp_path / "other").mkdir()
    other = Operator(await serve(database, max_log_bytes=1024**2), tmp_path / "other")
    await other.sees("notifier_relay", 0)
    frozen.send(signal.SIGSTOP)
    # Prometheus cannot scrape the frozen node: the other one is all that it sees.
    await other.fires({"NotifierNoRelay"})
    # Without a change nothing shows that the relay hangs, so the other node waits for the lock.
    printed = await terminal.follow(RELAY)
    assert "notifier relay" in printed, printed
    await other.sees("notifier_relay", 1)
    await other.fires(set())
    event = await new_event(database, await new_company(database))
    await database.relayed()
    assert await has_message(database, event)
    frozen.send(signal.SIGCONT)
    await operator.sees("notifier_relay", 0)


@pytest.mark.slow
async def test_a_change_makes_another_node_end_a_frozen_relay(
    database: Database, operator: Operator, serve: Serve, tmp_path: Path
) -> None:
    """What the run book promises before its commands."""
    (tmp_path / "other").mkdir()
    other = Operator(await serve(database, max_log_bytes=1024**2), tmp_path / "other")
    await other.sees("notifier_relay", 0)
    operator.service.send(signal.SIGSTOP)
    event = await new_event(database, await new_company(database))
    await other.sees("notifier_relay", 1)
    await database.relayed()
    assert await has_message(database, event)
    operator.service.send(signal.SIGCONT)
    await operator.sees("notifier_relay", 0)


@pytest.mark.slow
async def test_nats_that_is_cut_fires_and_nodes_return_to_it(
    database: Database, serve: Serve, nats: NatsServer, tmp_path: Path
) -> None:
    operator = Operator(await serve(database, nats_url=nats.url), tmp_path)
    terminal = Terminal(tmp_path, database_url=database.dsn, nats_url=nats.url)
    path = 'notifier_stream_path{path="nats"}'
    await operator.sees(path, 1)
    before = await operator.metrics()
    await operator.fires(set(), before)
    await nats.kill()
    await operator.sees(path, 0)
    await operator.fires({"NotifierNatsUnused"}, before)
    printed = await terminal.follow(NATS, {"systemctl start nats-server": nats.start})
    assert f"NATS at 127.0.0.1:{nats.port}" in printed, printed
    await operator.sees(path, 1)
    await operator.fires(set(), before)
