"""An operator's drill: what is broken fires its alert, by the metrics of the real service, and its run book mends it."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.x509 import load_pem_x509_certificate

from notifier.database.schema import migrate
from tests.conftest import Serve
from tests.databases import Database
from tests.installed import needs
from tests.natsd import NatsServer
from tests.postgres.relays import new_company, new_event
from tests.services import Service, run
from tests.waiting import until

ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
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

    def _inputs(self, metrics: dict[str, float], before: dict[str, float]) -> Iterator[str]:
        for series, value in metrics.items():
            name, _, labels = series.partition("{")
            given = f'job="notifier",{labels.rstrip("}")}'.rstrip(",")
            # promtool's clock begins at 0.
            shown = value - time.time() if name == EXPIRY else value
            past = f"{before[series]:.3f}x1 " if series in before and name != EXPIRY else ""
            values = f"{past}{shown:.3f}x125"
            yield f"      - {{series: '{name}{{{given}}}', values: '{values}'}}"


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
    assert await operator.firing() == set()
    return operator


@pytest.mark.slow
async def test_a_disabled_trigger_and_an_old_certificate_fire_and_are_mended(
    database: Database, operator: Operator, certificate: Certificate, tmp_path: Path
) -> None:
    await database.execute("ALTER TABLE events DISABLE TRIGGER notifier_capture")
    await operator.sees("notifier_watch_problems", 1)
    await operator.sees("notifier_ready", 0)
    assert await operator.firing() == {"NotifierNotReady", "NotifierWatchProblems"}
    status, output = await run(
        tmp_path, "migrate", database_url=database.dsn, max_log_bytes=1024**2
    )
    assert status == 0, output
    await operator.sees("notifier_watch_problems", 0)
    await operator.sees("notifier_ready", 1)
    assert await operator.firing() == set()

    certificate.issue(3)
    operator.service.send(signal.SIGHUP)
    await operator.sees(EXPIRY, certificate.expiry)
    assert await operator.firing() == {"NotifierCertificateExpires"}
    certificate.issue(90)
    operator.service.send(signal.SIGHUP)
    await operator.sees(EXPIRY, certificate.expiry)
    assert await operator.firing() == set()


@pytest.mark.slow
async def test_changes_that_pile_up_behind_an_open_transaction_fire_and_ending_it_mends(
    database: Database, operator: Operator
) -> None:
    app = await database.connect(app=True)
    company = await new_company(app)
    await app.execute("BEGIN")
    await new_event(app, company)
    for _ in range(10):
        await database.execute(
            "INSERT INTO events (company_id, title, starts_at, ends_at)"
            " SELECT $1, (SELECT string_agg(md5(random()::text || m), '') FROM generate_series(1, 60) AS m),"
            " now(), now() FROM generate_series(1, 40)",
            company,
        )

    async def fills() -> bool:
        return await operator.value("notifier_log_bytes") > 0.8 * 1024**2

    await until(fills)
    assert await operator.firing() == {"NotifierLogFilling"}
    ended = await database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND xact_start < now() AND state = 'idle in transaction'"
    )
    assert len(ended) == 1

    async def has_room() -> bool:
        await new_event(database, company)  # the relay maintains the log while there are changes
        return not await fills()

    await until(has_room)
    assert await operator.firing() == set()


@pytest.mark.slow
async def test_a_frozen_relay_fires_and_another_node_mends_it(
    database: Database, operator: Operator, serve: Serve, tmp_path: Path
) -> None:
    frozen = operator.service
    (tmp_path / "other").mkdir()
    other = Operator(await serve(database, max_log_bytes=1024**2), tmp_path / "other")
    await other.sees("notifier_relay", 0)
    frozen.send(signal.SIGSTOP)
    # Prometheus cannot scrape the frozen node: the other one is all that it sees.
    assert await other.firing() == {"NotifierNoRelay"}
    company = await new_company(database)
    event = await new_event(database, company)
    await other.sees("notifier_relay", 1)
    await database.relayed()
    assert await database.fetchval(
        "SELECT count(*) FROM notifier.messages WHERE body ->> 'Data' LIKE '%' || $1 || '%'", event
    )
    assert await other.firing() == set()
    frozen.send(signal.SIGCONT)
    await operator.sees("notifier_relay", 0)


@pytest.mark.slow
async def test_nats_that_is_cut_fires_and_nodes_return_to_it(
    database: Database, serve: Serve, nats: NatsServer, tmp_path: Path
) -> None:
    operator = Operator(await serve(database, nats_url=nats.url), tmp_path)
    path = 'notifier_stream_path{path="nats"}'
    await operator.sees(path, 1)
    before = await operator.metrics()
    assert await operator.firing(before) == set()
    await nats.kill()
    await operator.sees(path, 0)
    assert await operator.firing(before) == {"NotifierNatsUnused"}
    await nats.start()
    await operator.sees(path, 1)
    assert await operator.firing(before) == set()
