"""The JSON Schema of `notifier.toml`, which editors use: it accepts what `load` accepts."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from docs.toml_schema import FILES, text
from notifier.errors import SettingsError
from notifier.settings import load

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft7Validator(json.loads(text()))


def test_the_files_are_those_that_the_code_yields() -> None:
    Draft7Validator.check_schema(json.loads(text()))
    for file in FILES:
        assert file.read_text() == text(), "python -m docs.toml_schema"
    assert "null" not in re.findall(r'"type": "(\w+)"', text())


WATCH = '[[watch]]\ntable = "t"\nentity = "T"\n'
ACCEPTED = [
    "",
    "port = 9001\nallowed_origins = ['https://a.example']\njwt_audience = 'a, b'\nretention_hours = 0.5\n",
    WATCH,
    f'{WATCH}key = ["a", "b"]\nmember = "u"\nmember_if = {{ a = true, b = "x", c = 3 }}\nexclude = ["p"]\nvisible_to = ["u", "v"]\n',
    f'[[scope]]\nname = "team"\nmembership = "SELECT true"\n{WATCH}scope = "team"\ncase = "camel"\ncreated = ""\n',
    f'{WATCH}scope = "a"\n{WATCH}scope = "b"\n',
    f'naive_timestamps = "UTC"\n{WATCH}rename = {{ a = "b" }}\ndeleted_if = "gone"\nstate_where = "a > 1"\n',
]
REFUSED = [
    "colour = 1",
    "port = 'x'",
    "watch = []",
    '[[watch]]\ntable = "t"\n',
    f"{WATCH}key = []\n",
    f'{WATCH}case = "upper"\n',
    f"{WATCH}colour = 1\n",
    f'{WATCH}state_where = ""\n',
    f'{WATCH}member = "u"\nmember_if = {{ a = 1.5 }}\n',
    '[[scope]]\nname = "a:b"\n',
]


@pytest.mark.parametrize("written", [*ACCEPTED, *REFUSED])
def test_it_accepts_what_the_settings_accept(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notifier.toml").write_text(written)
    try:
        load()
    except SettingsError:
        accepted = False
    else:
        accepted = True
    assert accepted is (written in ACCEPTED)
    assert VALIDATOR.is_valid(tomllib.loads(written)) is accepted


TOML_FILES = sorted(
    file for file in ROOT.glob("**/notifier.toml") if "build" not in file.relative_to(ROOT).parts
)


@pytest.mark.parametrize("file", TOML_FILES, ids=str)
def test_the_files_of_this_repository_are_valid(file: Path) -> None:
    if ".venv" not in file.parts and "node_modules" not in file.parts:
        VALIDATOR.validate(tomllib.loads(file.read_text()))


@pytest.mark.parametrize("page", ["README.md", "docs/schemas.md"])
def test_the_examples_of_the_documentation_are_valid(page: str) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples
    for example in examples:
        VALIDATOR.validate(tomllib.loads(example))
