"""Builds the documentation site into build/docs/site: `make docs`.

The pages are staged as they lie in the repository, so that a link works on the site and in a checkout. What a page links
to and is no page itself is shown as one: each directory of deploy/ with its files. The settings reference and
llms.txt are generated. The build fails at a link that leads nowhere.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import zensical

from docs import settings

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "docs"
PAGES = BUILD / "pages"

COPIED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "bench/README.md",
    "examples",
    "clients/js",
)
"""Files and directories that pages link to, beside docs/ and deploy/."""

_LINK = re.compile(r"(\[[^\]]*\]\()([^)#\s]+)((?:#[^)]*)?\))")


def stage() -> None:
    """Writes everything that the site is built from."""
    shutil.rmtree(BUILD, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.py", "__pycache__", "node_modules", "zensical.toml")
    shutil.copytree(ROOT / "docs", PAGES / "docs", ignore=ignored)
    for name in COPIED:
        target = PAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    shutil.copy(ROOT / "README.md", PAGES / "index.md")
    (PAGES / "docs" / "settings.md").write_text(settings.page())
    for folder in sorted(each for each in (ROOT / "deploy").iterdir() if each.is_dir()):
        target = PAGES / "deploy" / folder.name
        shutil.copytree(folder, target)
        (target / "README.md").write_text(_listing(folder))
    for page in PAGES.rglob("*.md"):
        page.write_text(_relinked(page))
    (PAGES / "llms.txt").write_text("\n".join(_overview()) + "\n")
    shutil.copy(ROOT / "docs" / "zensical.toml", BUILD)


def _listing(folder: Path) -> str:
    """A page that shows the files of a directory."""
    lines = [f"# deploy/{folder.name}", ""]
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        kind = {".json": "json", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml"}.get(
            file.suffix, "ini"
        )
        lines += [f"## {file.name}", "", f"[Download]({file.name})", ""]
        if file.suffix != ".json":
            lines += [f"```{kind}", file.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def _relinked(page: Path) -> str:
    """The page, with links to directories led to the pages that show them, or made plain text."""

    def relink(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        if "://" in link or link.startswith("mailto:"):
            return found[0]
        target = (page.parent / link).resolve()
        if target == PAGES / "README.md":
            return f"{before}{'../' * len(page.parent.relative_to(PAGES).parts)}index.md{after}"
        if not target.is_dir():
            return found[0]
        if (target / "README.md").exists():
            return f"{before}{link.rstrip('/')}/README.md{after}"
        return before[1:-2]

    return _LINK.sub(relink, page.read_text())


def _overview() -> Iterator[str]:
    """llms.txt (llmstxt.org): what there is to read, for programs."""
    project = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    yield f"# {project['site_name']}"
    yield ""
    yield f"> {project['site_description']}"
    for section in project["nav"]:
        ((title, pages),) = section.items()
        if isinstance(pages, str):
            continue
        yield ""
        yield f"## {title}"
        yield ""
        for entry in pages:
            ((name, page),) = entry.items()
            address = re.sub(
                r"(README)?\.md$", lambda end: "index.html" if end[1] else ".html", page
            )
            yield f"- [{name}]({address}): {_first_sentence(PAGES / page)}"


def _first_sentence(page: Path) -> str:
    """The first line of text after the title."""
    for line in page.read_text().splitlines()[1:]:
        if line and line[0].isalnum():
            return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line).partition(". ")[0].rstrip(".")
    return page.stem


def build() -> None:
    """Builds the staged pages. Exits with 1 if a link leads nowhere; Zensical prints these links."""
    try:
        zensical.build(str(BUILD / "zensical.toml"), {"strict": True, "clean": False})
    except RuntimeError as error:
        sys.exit(f"docs: {error}")


if __name__ == "__main__":
    stage()
    build()
