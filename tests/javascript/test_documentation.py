"""The fragments of JavaScript and TypeScript in the documentation fit the package: `tsc` checks each as a module.

What an application brings is declared in GLOBALS. The types of its own tables are those that `notifier types` prints
for a calendar with invoices.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.blocks import ROOT, Block, blocks
from tests.compilers import lay_out, tool

HERE = "tests/javascript/test_documentation.py"
PAGES = ("docs/javascript.md", "docs/clients.md", "docs/quickstart.md", "clients/js/README.md")

GLOBALS = """
declare const getToken: () => Promise<string>;
declare const companyId: string, company: string, id: string, me: string;
declare const event: unknown, root: Element, queryClient: import("@tanstack/query-core").QueryClient;
declare function apply(message: object): void;
declare function reload(...given: unknown[]): Promise<void>;
declare function reloadState(): void;
declare function onStatus(status: { state: string }): void;
declare function show(rows: readonly object[]): void;
declare function notify(total: number): void;
declare function toast(text: string): void;
declare function save(event: unknown): Promise<{ tx: string }>;
declare function post(address: string, row: object): Promise<{ tx: string }>;
declare function createRoot(at: Element): { render(what: unknown): void };
"""
MESSAGES = """
import type { Calendar, Table } from "postgres-notifier";
export interface Invoice { InvoiceId: string; CompanyId: string; Total: number }
export interface Tables extends Calendar { Invoice: Table<"Invoice", Invoice, { InvoiceId: string }> }
export const tables = { Invoice: {} };
"""
OPTIONS = {
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "jsx": "react-jsx",
    "skipLibCheck": True,
    "lib": ["es2024", "dom", "dom.iterable"],
    "types": [],
    "noEmit": True,
}
CLIENT = "declare const client: import('postgres-notifier').Client;\n"


def fragments() -> list[Block]:
    """Those that are marked as checked here."""
    return [
        each
        for page in PAGES
        for each in blocks(ROOT / page)
        if each.mark is not None and each.mark[1] == HERE
    ]


def module(block: Block) -> str:
    """The fragment with the imports that a reader adds."""
    text = re.sub(r'"https?://[^"]+/client\.js"', '"postgres-notifier"', block.text)
    head = ""
    if re.search(r"\bconnect[<(]", text) and not re.search(r"import \{[^}]*\bconnect\b", text):
        head += 'import { connect } from "postgres-notifier";\n'
    if re.search(r"\bclient\.", text) and not re.search(r"const client =", text):
        head += CLIENT
    if augmented := re.findall(r'declare module ("[^"]+")', text):
        head += f"import {augmented[0]};\n"  # as the modules beside it do
    return f"{head}{text}\nexport {{}};\n"


@pytest.mark.slow
def test_the_fragments_fit_the_package(tmp_path: Path) -> None:
    place = lay_out(tmp_path)
    (place / "globals.d.ts").write_text(GLOBALS)
    (place / "messages.ts").write_text(MESSAGES)
    programs: dict[str, list[str]] = {"js": [], "ts": [], "own": []}
    for block in fragments():
        path = f"{block.page.replace('/', '-').removesuffix('.md')}-{block.line}.tsx"
        (place / path).write_text(module(block))
        # `declare module` changes the types of all modules of its program.
        own = "declare module" in block.text
        programs["own" if own else "js" if block.language == "js" else "ts"].append(path)
    for name, files in programs.items():
        assert files
        options = OPTIONS | {"strict": name != "js"}  # JavaScript has no types
        configuration = {"compilerOptions": options, "files": ["globals.d.ts", *files]}
        (place / f"{name}.json").write_text(json.dumps(configuration))
        done = subprocess.run(
            [*tool("tsc"), "-p", f"{name}.json"],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
