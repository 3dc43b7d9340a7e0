"""Which origins an operator may list, and how they are compared with those that browsers send."""

from __future__ import annotations

import pytest

from notifier.errors import SettingsError
from notifier.origins import normalize
from notifier.settings import load

URL = "postgresql://u@localhost/d"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example/", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("null", "null"),
    ],
)
def test_an_origin_is_compared_as_browsers_spell_it(given: str, sent: str) -> None:
    assert normalize(given) == sent


@pytest.mark.parametrize(
    "wrong",
    [
        "app.example",
        "https://",
        "https:app.example",
        "https://app.example/path",
        "https://app.example/?q",
        "https://app.example#x",
        "https://user@app.example",
        "https://*.example",
        "https://app.example:x",
        "https://app.example:70000",
        "https://a b.example",
        "https://[::1",
        '"https://app.example"',
        "https://app.example;https://b.example",
        "//app.example",
    ],
)
def test_case_e4_an_origin_that_no_browser_sends_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load({}, database_url=URL, allowed_origins=f"https://good.example, {wrong}")
    assert str(refusal.value).startswith("allowed_origins: ")
    assert "\n" not in str(refusal.value)


def test_case_e4_a_star_allows_every_origin_and_lists_are_lists() -> None:
    assert load({}, database_url=URL, allowed_origins="*").allowed_origins is None
    assert (
        load({}, database_url=URL, allowed_origins="https://a.example, *").allowed_origins is None
    )
    chosen = load({}, database_url=URL, allowed_origins="https://a.example/, http://b.example")
    assert chosen.allowed_origins == ("https://a.example", "http://b.example")
