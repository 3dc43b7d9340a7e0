"""Comments of the statements in `sql/queries/`."""

from __future__ import annotations

import re

import pytest

from notifier.database import sql


@pytest.mark.parametrize("name", sql.names("queries"))
def test_no_comment_holds_a_placeholder(name: str) -> None:
    """The names of tables and columns may contain a newline, behind which a comment is part of the statement."""
    comments = re.findall(r"--.*", sql.query(name))
    assert [line for line in comments if re.search(r"(?<!{){\w+}(?!})", line)] == []
