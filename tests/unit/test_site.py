"""The documentation site: every page is on it, every setting is explained, and no link leads nowhere."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import settings, site
from notifier.settings import PREFIX, Settings
from notifier.watches import Watch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own for the site: tests of other workers stage theirs at the same time."""
    monkeypatch.setattr(site, "BUILD", tmp_path)
    monkeypatch.setattr(site, "PAGES", tmp_path / "pages")
    return tmp_path


def pages(entries: list[dict[str, object]]) -> Iterator[str]:
    """The files that a part of the navigation names."""
    for entry in entries:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                yield from pages(value)


def test_the_reference_explains_every_variable_and_option() -> None:
    variables = {each.name: each for each in settings.variables()}
    names = {
        f"{PREFIX}{name.upper()}"
        for name in Settings.model_fields
        if name not in ("watch", "scope")
    }
    assert set(variables) == names | {"NOTIFIER_CONFIG"}
    assert {each.name for each in settings.options()} == {
        each.name for each in dataclasses.fields(Watch) if each.init
    }
    assert variables["NOTIFIER_PORT"].values == "a whole number from 0 to 65,535"
    assert variables["NOTIFIER_PORT"].default == "`8181`"
    assert variables["NOTIFIER_LOG_FORMAT"].values == "`auto` or `json` or `text`"
    assert variables["NOTIFIER_DOORBELL"].default == "`on`"
    assert variables["NOTIFIER_STATUS_PORT"].values == "a whole number from 0 to 65,535"
    assert all(each.meaning and each.default for each in variables.values())


def test_the_defaults_of_the_readme_are_those_of_the_code() -> None:
    known = settings.meanings("| variable | meaning | default |")
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, int | float) and not isinstance(default, bool):
            given = known[name.upper()].default.strip("`")
            units = {"1 MiB": 1024**2, "1 GiB": 1024**3}
            assert units.get(given, given) in {default, f"{default:g}", str(default)}, name


def test_every_page_has_its_place_in_the_navigation() -> None:
    project = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    placed = set(pages(project["nav"]))
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"docs/{page.name}" in placed
    for name in placed - {"index.md", "docs/settings.md"}:
        assert (ROOT / name).is_file()


def test_the_site_is_built_without_a_warning_and_has_an_overview_for_programs(
    directory: Path,
) -> None:
    site.stage()
    site.build()
    built = directory / "site"
    overview = (built / "llms.txt").read_text()
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", overview, re.MULTILINE)
    assert len(links) > 20
    for link in links:
        assert (built / link).is_file(), link
    assert "NOTIFIER_DATABASE_URL" in (built / "docs" / "settings.html").read_text()
    assert "alerts.yml" in (built / "deploy" / "prometheus" / "index.html").read_text()
    assert "://fonts." not in (built / "index.html").read_text()


def test_a_link_that_leads_nowhere_fails_the_build(directory: Path) -> None:
    site.stage()
    page = directory / "pages" / "docs" / "http.md"
    page.write_text(f"{page.read_text()}\n[a page](nowhere.md)\n")
    with pytest.raises(SystemExit, match="strict"):
        site.build()
