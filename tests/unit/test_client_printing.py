"""How `notifier listen` prints a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifier.client import Message, Recovered, Resync, Skipped, Status
from notifier.client.printing import JsonPrinter, LinePrinter


def message(**fields: Any) -> Message:
    given: dict[str, Any] = {
        "type": "EventUpdated",
        "company": "a",
        "data": {"EventId": "1", "Title": "Tea"},
        "old": None,
        "position": 7,
        "epoch": "e",
        "at": "",
        "actor": None,
        "partial": False,
        "text": '{"Type": "EventUpdated"}',
    }
    return Message(**given | fields)


RESYNC: dict[str, Any] = {"company": "a", "position": 7, "epoch": "e"}


def test_a_line_has_the_change_and_the_actor(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter().print(message(old={"Title": "Milk"}, actor="u7"))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == [
        "--:--:--",
        "7",
        "EventUpdated",
        "Tea",
        "Title",
        "Milk",
        "→",
        "Tea",
        "by",
        "u7",
    ]


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"EventId": "1", "Name": "Ann"}, "Ann"),
        ({"eventId": "1", "title": "Tea"}, "Tea"),
        ({"id": "1", "name": "Ann"}, "Ann"),
        ({"EventId": "1", "Title": None}, "1"),
        ({"EventId": "1", "Title": "x" * 61}, "x" * 59 + "…"),
        ({}, ""),
    ],
)
def test_a_line_shows_the_title_the_name_or_the_key(
    data: dict[str, Any], title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LinePrinter().print(message(data=data))
    assert capsys.readouterr().out.rstrip("\n").endswith(f"EventUpdated     {title}")


def test_no_character_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter().print(message(data={"Title": "a\x1b[2J\nb\u202e"}, actor="\x07"))
    out = capsys.readouterr().out
    assert "a\N{REPLACEMENT CHARACTER}[2J b\N{REPLACEMENT CHARACTER}" in out
    assert out.count("\n") == 1
    assert "\x07" not in out


def test_a_partial_message_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    LinePrinter().print(message(partial=True))
    assert "too large to be sent" in capsys.readouterr().out


def test_lines_report_where_they_continue(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter()
    printer.print(Resync(reason="start", **RESYNC))
    printer.print(Resync(reason="bulk", **RESYNC))
    printer.print(Recovered(**RESYNC))
    assert capsys.readouterr().out.splitlines() == [
        "listening after position 7 of epoch e",
        "resync (bulk): messages before position 7 of epoch e may be incomplete",
        "resumed after position 7 of epoch e",
    ]


def test_json_is_the_received_text_on_one_line(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    JsonPrinter().print(message(text='{\r\n "Type": "EventUpdated"}'))
    assert capsysbinary.readouterr().out == b'{   "Type": "EventUpdated"}\n'


def test_json_has_a_resync_of_the_client_in_the_servers_form(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    printer = JsonPrinter()
    printer.print(Resync(reason="start", **RESYNC))
    printer.print(Recovered(**RESYNC))
    printer.print(Resync(reason="gap", **RESYNC))
    assert json.loads(capsysbinary.readouterr().out) == {
        "Type": "Resync",
        "Data": {"CompanyId": "a", "Reason": "gap", "Epoch": "e"},
        "Position": 7,
    }


def test_the_status_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter()
    printer.print_status(Status(state="connecting", company="a"))
    printer.print_status(
        Status(
            state="waiting",
            company="a",
            reason="cannot connect",
            code=1006,
            error=OSError("refused\n"),
            retry_in=0.25,
        )
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "waiting 0.2 s: cannot connect (1006), refused \n"


def test_with_several_companies_each_line_names_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter(several=True)
    printer.print(message())
    printer.print(Recovered(**RESYNC))
    printer.print(Skipped(**RESYNC))
    printer.print_status(Status(state="idle", company="a", reason="revoked"))
    printer.print_status(Status(state="waiting", company=None))
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["a", "a"]
    assert err.splitlines() == ["a: idle: revoked", "waiting"]


def test_no_epoch_and_no_reason_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd: dict[str, Any] = {"company": "a", "position": 7, "epoch": "e\x1b[2J\x9b\ud800"}
    for report in (
        Resync(reason="bulk\x1b]0;x", **odd),
        Resync(reason="start", **odd),
        Recovered(**odd),
    ):
        LinePrinter().print(report)
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 3
