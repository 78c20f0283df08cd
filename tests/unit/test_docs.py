"""The documentation matches the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from django_agentexec.conf import conf
from tests.support.public_api import DEPRECATED, homes, public_names

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
REPOSITORY = "https://github.com/django-agentexec/django-agentexec/"
RAW = "https://raw.githubusercontent.com/django-agentexec/django-agentexec/main/"
WIDTH = 100  # characters
FIRST_SCREEN = 30  # lines
GENERATED = re.compile(r"<!-- (\w+) -->.*?<!-- end of .*?-->", re.DOTALL)


def settings_table() -> str:
    """Return the table of docs/settings.md for the settings of the code."""
    rows = [f"| `{s.name}` | `{s.default!r}` | {s.help} |" for s in conf]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def targets(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures, without anchors."""
    text = page.read_text()
    inline = re.findall(r"\]\(([^)#\s]+)", text)
    return inline + re.findall(r"^\[[\w-]+\]: ([^#\s]+)", text, re.MULTILINE)


def local_path(page: Path, target: str) -> Path | None:
    """Return the file of this repository to which a link leads, None for other sites."""
    for prefix in (f"{REPOSITORY}blob/main/", f"{REPOSITORY}tree/main/", RAW):
        if target.startswith(prefix):
            return ROOT / target.removeprefix(prefix)
    return None if target.startswith("http") else page.parent / target


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    assert [row for row in settings_table().splitlines() if row not in page] == []
    assert settings_table() in page, "The rows of docs/settings.md are in another order."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_broken(page: Path) -> None:
    paths = {target: local_path(page, target) for target in targets(page)}
    assert [target for target, path in paths.items() if path and not path.exists()] == []


def test_links_of_the_readme_work_on_a_package_index() -> None:
    page = ROOT / "README.md"
    text = page.read_text()
    defined = set(re.findall(r"^\[([\w-]+)\]: ", text, re.MULTILINE))
    used = set(re.findall(r"\]\[([\w-]+)\]", text))
    assert [target for target in targets(page) if not target.startswith("https://")] == []
    assert used == defined


def test_the_first_screen_of_the_readme_has_the_installation() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:FIRST_SCREEN])
    assert "runagentworkers" in first
    assert "pip install" in first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_wrapped(page: Path) -> None:
    lines = re.sub(r"^( *)```.*?^\1```", "", GENERATED.sub("", page.read_text()), flags=re.M | re.S).splitlines()
    long = [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "[", "http"))]
    assert long == []


def test_every_system_check_is_documented() -> None:
    page = (DOCS / "checks.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "django_agentexec").rglob("*.py"))
    ids = set(re.findall(r'id="(agentexec(?:_\w+)?\.[EW]\d{3})"', code))
    assert ids
    assert set(re.findall(r"^\| `(agentexec(?:_\w+)?\.[EW]\d{3})`", page, re.MULTILINE)) == ids


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "public-api.md").read_text()
    table = page[page.index("## Names") : page.index("## Stability")]
    assert {name for name in public_names() if f"`{name}`" not in table} == set()


def test_every_public_name_has_a_reference() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    entries = set(re.findall(r"auto(?:function|class|module):: django_agentexec\.(\S+)", pages))
    missing = {name for name, home in homes().items() if name not in entries and home not in entries}
    assert missing == set(DEPRECATED)


def public_modules() -> dict[str, str]:
    """Return the text about each module in the table of docs/public-api.md."""
    page = (DOCS / "public-api.md").read_text()
    table = page[page.index("## Names in other modules") : page.index("## Stability")]
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", table, re.MULTILINE))


def is_listed(module: str, name: str) -> bool:
    """Return whether docs/public-api.md lists a name of a module; "" stands for the module."""
    text = public_modules().get(module)
    return text is not None and (not name or text.startswith(("all", "the ")) or f"`{name}`" in text)


def modules_of_pages(page: Path) -> set[tuple[str, str]]:
    """Return the modules of the package that a page names or imports, each with a name in it or ""."""
    text = page.read_text()
    imports = re.findall(r"^ *from (django_agentexec\.[\w.]+) import (.+)$", text, re.MULTILINE)
    found = {(module, name.strip()) for module, names in imports for name in names.split(",")}
    for path in re.findall(r"[`\"'](django_agentexec\.[\w.]+)\b", text):
        module, _, name = path.rpartition(".")
        found.add((path, "") if path in public_modules() else (module, name))
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "public-api.md"], ids=lambda page: page.name)
def test_every_name_that_a_page_uses_is_public(page: Path) -> None:
    used = {(module, name) for module, name in modules_of_pages(page) if module != "django_agentexec"}
    assert {f"{module}: {name}" for module, name in used if not is_listed(module, name)} == set()


def test_the_listed_modules_have_the_listed_names() -> None:
    for module, text in public_modules().items():
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), module
        names = [] if text.startswith(("all", "the ")) else re.findall(r"`(\w+)`", text.partition("(")[0])
        assert [name for name in names if not hasattr(importlib.import_module(module), name)] == [], module


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/internals.md"])
def test_the_map_names_every_package(page: str) -> None:
    packages = {path.parent.name for path in (ROOT / "django_agentexec").glob("*/__init__.py")}
    # Names that Django gives, and an alias of a former name.
    expected = packages - {"management", "migrations", "events"}
    rows = re.findall(r"^\| (`\w+/`.*?) \|", (ROOT / page).read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)/`", row)} == expected


def test_every_thread_is_documented() -> None:
    page = (DOCS / "internals.md").read_text()
    table = page[page.index("## Threads") :]
    code = "\n".join(path.read_text() for path in (ROOT / "django_agentexec").rglob("*.py"))
    names = set(re.findall(r"(?:name(?:_prefix)?(?:: str)? ?= ?f?|_thread\()\"(agentexec-[a-z-]+)", code))
    names -= {"agentexec-drain"}  # of tests
    assert len(names) > 15
    assert {name for name in names if f"`{name.rstrip('-')}" not in table} == set()


def test_every_block_of_the_admin_is_documented() -> None:
    folder = ROOT / "django_agentexec" / "templates"
    templates = "\n".join(path.read_text() for path in folder.rglob("*.html"))
    page = (DOCS / "admin.md").read_text()
    section = page[page.index("## Templates") :]
    blocks = set(re.findall(r"{% block (agentexec_\w+) %}", templates))
    assert blocks
    assert set(re.findall(r"`(agentexec_\w+)`", section)) == blocks


def test_every_page_is_in_the_navigation() -> None:
    index = (DOCS / "index.md").read_text()
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} - {"index"}
    assert [page for page in sorted(pages) if f"\n{page}\n" not in index] == []


def test_every_guarantee_names_tests_that_exist() -> None:
    page = (DOCS / "guarantees.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    judgment = (ROOT / "tests" / "chaos" / "judgment.py").read_text()
    judges = re.findall(r"^def ([a-z]\w+)\(history: History\) -> Findings", judgment, re.MULTILINE)
    guarantees = page[: page.index("## Required configuration")]

    named = set(re.findall(r"`(test_\w+)`", guarantees))
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
    assert judges
    assert [judge for judge in judges if f"`{judge}`" not in guarantees] == []


def test_every_attack_names_tests_that_exist() -> None:
    page = (DOCS / "security.md").read_text()
    table = page[page.index("## Attacks that are covered") :]
    files: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):  # several may have one name
        files[path.name] = files.get(path.name, "") + path.read_text()

    missing, rows = [], 0
    for row in table.splitlines():
        named = re.findall(r"`(test_\w+\.py)?(?:::(\w+))?`", row)
        file = ""
        for name, test in named:
            file = name or file
            if (name or test) and (file not in files or f"def {test}" not in files[file]):
                missing.append(f"{file}::{test}")
            rows += bool(name)
    assert missing == []
    assert rows
