"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from django.utils.functional import Promise

from django_agentexec.conf import conf

ROOT = Path(__file__).resolve().parents[2]


def settings_table() -> str:
    """Return the table of docs/settings.md as the code has it."""
    defaults = {s: str(s.default) if isinstance(s.default, Promise) else s.default for s in conf}
    rows = [f"| `{s.name}` | `{default!r}` | {s.help} |" for s, default in defaults.items()]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def test_every_setting_is_documented() -> None:
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_no_link_is_broken() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_guarantee_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    judgment = (ROOT / "tests" / "chaos" / "judgment.py").read_text()
    judges = re.findall(r"^def ([a-z]\w+)\(history: History\) -> Findings", judgment, re.MULTILINE)
    promises = page[: page.index("## Under which configuration")]

    named = set(re.findall(r"`(test_\w+)`", promises))
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
    assert judges
    assert [judge for judge in judges if f"`{judge}`" not in promises] == []


def test_every_attack_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    table = page[page.index("## Attacks that are covered") :]
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}

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
