"""Docstrings, comments, messages and documentation use plain technical English: the words of `docs/glossary.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("django_agentexec", "example_project", "benchmarks", "tests")
PAGES = ("docs", "README.md", "CONTRIBUTING.md", "SECURITY.md")
HISTORY = {"CHANGELOG.md"}
COPIES = {"earlier_lua"}  # of files of an earlier release

# What it should be instead is the second part of each line.
AVOID = {
    r"\banew\b": "again",
    r"\bwhoever\b": "name the subject: the client, the handler, the caller",
    r"\b(tells?|told)\b": "reports, notifies, returns, shows",
    r"\b(hears?|heard)\b": "receives, is notified",
    r"\b(complains?|wish(es)?)\b": "logs, requests",
    r"\bgood-bye\b|\blast words\b": "deregister, flush",
    r"\bgo(es)? on\b|\bgoing on\b": "continues, resumes, runs",
    r"\b(is|are|was|were|be) away\b": "unavailable",
    r"\bunless (said|asked|told|set) ?(otherwise)?\b": "by default",
    r"\b(the|each|every|this|that|other|another|first|last|new|old|only|same|default) ones?\b": "name the thing",
    r"\bof ours\b|\bof theirs\b|\bof its own\b": "own, the package's",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bbur(y|ies|ied)\b": "handle the exit",
    r"^Do what `": "Async version of `x`.",
    r"\bfor ever\b": "forever, without a limit",
    r"\bever so\b|\bbefore long\b|\bseldom\b": "soon, rarely",
    r"\bthe (dispatcher|recorder|lease keeper)s?\b": "the claimer, the committer, the heartbeat",
}


COMMENT = re.compile(r"(?:^|\s)#+ ?(.*)")
"""A comment, or text after such a sign in a string, which is prose, too."""


def prose_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield comments, docstrings and string literals with at least two words, each with its line."""
    source = path.read_text()
    for number, line in enumerate(source.splitlines(), 1):
        if comment := COMMENT.search(line):
            yield number, comment[1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def prose_of_page(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page outside of its code blocks."""
    is_code = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, re.sub(r"`[^`]*`", "", line)


def files(folder: str) -> Iterator[tuple[Path, Iterator[tuple[int, str]]]]:
    """Yield the files of a folder with code, or the pages of one with documentation, each with its prose."""
    if folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts and path != Path(__file__).resolve():
                yield path, prose_of_code(path)
        for pattern in ("*.html", "*.js", "*.lua", "*.css"):
            for path in sorted((ROOT / folder).rglob(pattern)):
                if path.parent.name not in COPIES:
                    yield path, enumerate(path.read_text().splitlines(), 1)
    else:
        place = ROOT / folder
        for path in sorted(place.rglob("*.md")) if place.is_dir() else [place]:
            yield path, prose_of_page(path)


# First words of docstrings of functions that are no verbs.
NO_VERBS = re.compile(
    r"(Whether|What|Where|How|Who|Why|When|Which|The|An?|Each|Every|Its?|As|At|No|In|On|From|With|Without|Until|If)\b|`"
)


def docstrings_of_functions(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line and docstring of each function, and whether it is a property."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield node.lineno, text, any("property" in ast.unparse(each) for each in node.decorator_list)


def test_docstrings_of_functions_begin_with_a_verb_and_those_of_properties_with_a_noun() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for folder in ("django_agentexec", "example_project")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "migrations" not in path.parts
        for line, text, is_property in docstrings_of_functions(path)
        if (text.startswith("Return") if is_property else NO_VERBS.match(text))
    ]
    assert found == [], 'write "Return whether ...", and for properties "Whether ..." or a noun:\n' + "\n".join(found)


@pytest.mark.parametrize("folder", [*CODE, *PAGES])
def test_no_private_dialect(folder: str) -> None:
    avoided = {re.compile(pattern, re.IGNORECASE | re.MULTILINE): remedy for pattern, remedy in AVOID.items()}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r} ({remedy}): {' '.join(text.split())[:90]}"
        for path, prose in files(folder)
        for line, text in prose
        for pattern, remedy in avoided.items()
        if (match := pattern.search(text))
    ]
    assert found == [], "say it in plain terms:\n" + "\n".join(found)
