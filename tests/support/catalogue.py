"""The catalogues of translations: the entries of a .po file, and the texts that the source marks for translation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from django.utils.translation.template import templatize

import django_agentexec

PACKAGE = Path(django_agentexec.__file__).parent
GERMAN = PACKAGE / "locale" / "de" / "LC_MESSAGES" / "django.po"

Key = tuple[str, str]
"""The context and the message id."""

# The positions of context, id and plural among the arguments of each function.
FUNCTIONS = {"gettext": (None, 0), "ngettext": (None, 0), "pgettext": (0, 1), "npgettext": (0, 1)}
ALIASES = {
    "_": "gettext",
    **{f"{name}{suffix}": name for name in FUNCTIONS for suffix in ("", "_lazy", "_noop")},
}


@dataclass
class Entry:
    """An entry of a catalogue."""

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    context: str = ""
    flags: str = ""


@cache
def entries(path: Path = GERMAN) -> list[Entry]:
    """Return the entries of a .po file, without its header; read once, so do not change them."""
    found = [_entry(block) for block in re.split(r"\n\s*\n", path.read_text()) if re.search(r"^msgid", block, re.M)]
    return [entry for entry in found if entry.ids != [""]]


def _entry(block: str) -> Entry:
    entry = Entry()
    for line in block.splitlines():
        if line.startswith("#,"):
            entry.flags += line
        elif match := re.match(r'(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) (".*")$', line):
            name, text = match[1], ast.literal_eval(match[2])
            if name == "msgctxt":
                entry.context = text
            else:
                (entry.ids if name.startswith("msgid") else entry.texts).append(text)
        elif line.startswith('"'):
            (entry.texts or entry.ids)[-1] += ast.literal_eval(line)
    return entry


def marked() -> Iterator[tuple[Path, Key]]:
    """Yield the texts that the package marks for translation."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        if any(f"{alias}(" in source for alias in ALIASES):  # parsing all others would take most of the time
            for key in _marked_in(source):
                yield path, key
    for path in sorted(PACKAGE.rglob("*.html")):
        # Django's own form of a template for xgettext: calls of gettext between text that is blanked out.
        for call in re.findall(r"\bn?p?gettext\(.*?\) |\b_\(.*?\) ", templatize(path.read_text()), re.S):
            for key in _marked_in(call.strip()):
                yield path, key


def _marked_in(source: str) -> Iterator[Key]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name not in ALIASES:
            continue
        at_context, at_id = FUNCTIONS[ALIASES[name]]
        texts = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
        if len(texts) > at_id and isinstance(texts[at_id], str):
            yield str(texts[at_context]) if at_context is not None else "", str(texts[at_id])


def english_in(text: str, *, cells: bool = True) -> set[str]:
    """Return the English texts of the catalogue that a German output contains: sentences and, by default, cells."""
    plain = " ".join(text.split())
    found = {cell.strip(" .:") for line in text.splitlines() for cell in re.split(r"\s{2,}", line)} if cells else set()
    return {
        english
        for entry in entries()
        for english, german in zip(entry.ids, entry.texts, strict=True)
        if german != english and (english in found or (len(english.split()) > 2 and " ".join(english.split()) in plain))
    }
