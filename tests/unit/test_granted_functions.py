"""The functions that `migrate --grant` lets a role execute are those that its queries need."""

from __future__ import annotations

import re
from pathlib import Path

import notifier
from notifier.database import sql


def called() -> set[str]:
    """The functions that statements outside of functions call, and the functions that these call.

    The texts that `migrate` puts into functions are not among them.
    """
    folder = Path(notifier.__file__).parent
    statements = [path.read_text() for path in folder.rglob("*.py")]
    names = set(sql.names("queries")) - {"path_lock", "path_member", "path_members"}
    statements += [sql.query(name) for name in names]
    statements += [sql.view(name) for name in sql.names("views")]
    bodies = {name: sql.function(name) for name in sql.names("functions")}
    found: set[str] = set()
    while statements:
        new = {*re.findall(r"notifier\.(\w+)\(", statements.pop())} & bodies.keys() - found
        found |= new
        statements += [bodies[name] for name in new]
    return found


def test_each_function_that_a_query_calls_is_granted_and_no_other() -> None:
    """`lacking_rights.sql` names them; a query that calls a further one fails for every role but the owner."""
    text = sql.query("lacking_rights")
    named = re.search(r"p\.proname IN \(([^)]*)\)", text)
    assert named is not None
    assert {*re.findall(r"'(\w+)'", named[1])} == called()
