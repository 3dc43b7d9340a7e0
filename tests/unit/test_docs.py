"""The documents agree with the code: links, the drawing, metrics, log messages, field reports, words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from docs import architecture
from notifier import metrics

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
LEVELS = {"info", "warning", "error", "exception"}


def tables(document: str, title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = document.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_heading_that_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_no_page_has_the_marks_of_a_conflict() -> None:
    for page in PAGES:
        marks = re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", page.read_text(), re.MULTILINE)
        assert not marks, f"{page.name}: {marks}"


@cache
def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_threat_is_listed_twice() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "threats.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    threats = [row.split(" | ")[0] for row in rows if row != "| threat | protection | tests |"]
    assert len(threats) > 100
    assert len(set(threats)) == len(threats)


def test_figures_that_name_a_row_of_the_benchmark_are_those_of_the_readmes_table() -> None:
    measured = (ROOT / "README.md").read_text().split("<!-- bench -->")[1]
    rows = re.findall(r"^\| (\w+) \| .+? \| .+? \| ([\d.,]+).* \|$", measured, re.MULTILINE)
    medians = dict(rows)
    named = [
        (page.name, *found)
        for page in PAGES
        for found in re.findall(
            r"(\d[\d.,]*)[^\d()|\n]{0,40} \(([A-Z]\d[a-z]?)\)", page.read_text()
        )
        if "decisions" not in page.parts and page.name != "CHANGELOG.md"
    ]
    assert {page for page, _, _ in named} >= {"README.md", "scaling.md"}
    for page, figure, row in named:
        assert medians[row] == figure, f"{page} has {figure} ({row}), the table {medians[row]}"


def test_the_drawing_is_the_one_that_the_code_yields() -> None:
    assert architecture.DRAWING.read_text() == architecture.svg(), "python docs/architecture.py"


def test_the_architecture_names_every_file_over_400_lines() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text().split("## Files over 400 lines")[1]
    package = ROOT / "notifier"
    long = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    }
    assert long == set(re.findall(r"`(\S+\.py)`", section))


def test_the_operations_page_lists_every_metric() -> None:
    listed = {name.strip("`") for name, *_ in ((row[0].split()) for row in metrics_table())}
    defined = {
        name
        for metric in REGISTRY.collect()
        if metric.name.startswith("notifier_")
        for name in [f"{metric.name}_total" if metric.type == "counter" else metric.name]
    }
    assert metrics.SOCKETS is not None
    assert listed == defined, "list the metric in docs/operations.md"


def metrics_table() -> list[list[str]]:
    return tables(OPERATIONS, "Metrics")


WITHOUT_FIXED_TEXT = ["notifier/certificates.py", "notifier/cli.py"]
"""Files that log a line which they were given; there is a sentence on each below the table."""


def texts(event: ast.expr) -> Iterator[str]:
    """The texts of a call's first argument; `…` stands for inserted values."""
    match event:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from texts(event.body)
            yield from texts(event.orelse)
        case ast.JoinedStr():
            yield "".join(
                str(each.value) if isinstance(each, ast.Constant) else "…" for each in event.values
            )


def log_calls() -> Iterator[tuple[str, ast.Call, str]]:
    """File, call and level of each call of a logger in notifier/, but for level debug."""
    for path in sorted((ROOT / "notifier").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log" | "_logger"), attr=level)
                ) if level in LEVELS:
                    name = str(path.relative_to(ROOT))
                    yield name, node, "error" if level == "exception" else level


def test_the_operations_page_lists_every_log_message_with_its_level_and_its_fields() -> None:
    logged, variable = set(), []
    for path, call, level in log_calls():
        fields = tuple(sorted(each.arg for each in call.keywords if each.arg))
        logged |= {(text, level, fields) for text in texts(call.args[0])}
        if not list(texts(call.args[0])):
            variable.append(path)
    listed = {
        (text.strip("`"), level, tuple(sorted(re.findall(r"`(\w+)`", fields))))
        for text, level, fields, *_ in tables(OPERATIONS, "Log messages")
    }
    assert listed == logged
    assert variable == WITHOUT_FIXED_TEXT


def test_every_test_that_a_page_names_exists() -> None:
    for page in PAGES:
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
            assert re.search(
                rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE
            ), name


def test_every_test_of_the_javascript_client_that_a_page_names_exists() -> None:
    for page in PAGES:
        for path, title in re.findall(r"`(tests/[\w/-]+\.mjs): ([^`]+)`", page.read_text()):
            assert re.search(rf'\btest\("{re.escape(title)}"', (ROOT / path).read_text()), title


PROMISES = [
    "Several companies on one socket",
    "Filters",
    "Skipped, and positions without a gap",
    "The clients",
    "Rows for some users only",
    "Has my write arrived?",
    "The proof of a position",
]


@pytest.mark.parametrize("title", PROMISES)
def test_every_promise_has_a_mutation_and_tests_that_fail(title: str) -> None:
    rows = tables((ROOT / "docs" / "promises.md").read_text(), title)
    assert len(rows) > 8
    for sentence, broken, where, tests in rows:
        assert broken
        assert where.startswith("`"), sentence
        assert re.fullmatch(r"`tests/[^`]+`( `tests/[^`]+`)*", tests), sentence


def test_every_row_of_the_field_reports_names_a_test_or_a_reason() -> None:
    page = (ROOT / "docs" / "cases.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| (?!example)[^ |-]+ \| ", line)]
    assert rows
    for row in rows:
        assert re.search(r"\| (`tests/|Left: |Open: )", row), row


REPORTED = (
    *map(str, (1, 2, 3, 4, 5, 7, 8, "8b", *range(9, 14), *range(15, 19))),
    *(f"F{n}" for n in (1, 2, 3, 5, 6, 7, 8, 9, *range(12, 22))),
    *("1.2", "1.6", "1.19", "1.24b", "1.25", "2.2", "3.1", "3.6", "3.9", "3.10"),
    *("5.1", "5.5", "5.6", "6.1", "6.6"),
    *(f"E{n}" for n in (1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13)),
)
"""The reports of a fault, or of something unclear. 20 is left as it is; other rows of 1 to 6 are in these."""

NAMED_OTHERWISE = {"E13": "deflate"}
"""A word in the names of its tests."""


def reported() -> dict[str, str]:
    """The rows of the field reports by their numbers."""
    page = (ROOT / "docs" / "cases.md").read_text().split("\n## Further examples\n")[0]
    rows = [line for line in page.splitlines() if re.match(r"\| [^ |-]+,? ", line)]
    return {number.strip(): row for row in rows for number in row.split("|")[1].split(",")}


@pytest.mark.parametrize("number", REPORTED)
def test_every_field_report_has_a_row_and_a_test_that_is_named_after_it(number: str) -> None:
    row = reported()[number]
    word = NAMED_OTHERWISE.get(number, number.lower().replace(".", "_"))
    names = [name for _, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)]
    assert any(f"_{word}_" in f"{name}_" for name in names), row


def test_each_kind_has_two_further_examples() -> None:
    section = (ROOT / "docs" / "cases.md").read_text().split("\n## Further examples\n")[1]
    kinds = re.split(r"\n### (\d+)\. [^\n]+\n", section)[1:]
    examples = {
        int(number): [line for line in table.splitlines() if "`tests/" in line]
        for number, table in zip(kinds[::2], kinds[1::2], strict=True)
    }
    assert set(examples) == set(range(1, 14))
    assert all(len(lines) >= 2 for lines in examples.values())


def test_every_sentence_about_schemas_and_configuration_names_a_test() -> None:
    rows = tables((ROOT / "docs" / "guarantees.md").read_text(), "Schemas and configuration")
    assert len(rows) > 40
    for sentence, tests in rows:
        assert re.fullmatch(r"`tests/[^`]+`( `tests/[^`]+`)*", tests), sentence


RULED_OUT = re.compile(r"\b(?:nobody(?!['\"\\])|somebody|whoever|afresh|anew)\b", re.IGNORECASE)
"""Some of the words that CONTRIBUTING.md rules out. The first is also the name of a Unix user: in quotes it is allowed."""

READ = [
    *PAGES,
    *(ROOT / "notifier").rglob("*.py"),
    *(ROOT / "notifier").rglob("*.js"),
    *(ROOT / "sql").rglob("*.sql"),
    *(ROOT / "migrations").rglob("*.py"),
    *(ROOT / "tests").rglob("*.py"),
]


def test_no_word_that_is_ruled_out_is_used() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in READ
        if path != Path(__file__)
        for word in RULED_OUT.findall(path.read_text())
    }
    assert found == set()
