"""The documents that the agents read, as files. This module does not depend on agents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import capwords

FOLDER = Path(__file__).parent / "library"
PAGE_CHARACTERS = 2_600  # about a printed page


class DocumentNotFound(LookupError):
    """There is no such document, or no such page of it."""


@dataclass(frozen=True)
class Passage:
    """A paragraph and its page (from 1)."""

    page: int
    text: str


@dataclass(frozen=True)
class Document:
    """A text of the library. `name` is its file name."""

    name: str
    title: str
    pages: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "\n\n".join(self.pages)

    def page(self, number: int) -> str:
        """Return page `number`, counted from 1; raises `DocumentNotFound` beyond the last."""
        if not 1 <= number <= len(self.pages):
            raise DocumentNotFound(f"{self.name} has pages 1 to {len(self.pages)}, but no page {number}.")
        return self.pages[number - 1]

    def search(self, query: str, limit: int = 5) -> list[Passage]:
        """Return up to `limit` paragraphs with the most words of `query`, best match first."""
        words = {word.lower()[:6] for word in re.findall(r"\w{3,}", query)}
        found = []
        for number, page in enumerate(self.pages, 1):
            for paragraph in page.split("\n\n"):
                score = sum(word in paragraph.lower() for word in words)
                if score and not is_heading(paragraph):
                    found.append((score, Passage(number, paragraph)))
        found.sort(key=lambda hit: -hit[0])
        return [passage for _, passage in found[:limit]]

    def contains(self, quote: str) -> bool:
        """Return whether the document contains `quote` word for word; spaces and emphasis are ignored."""
        return bool(quote.strip()) and _plain(quote) in _plain(self.text)

    def prints(self, figure: str) -> bool:
        """Return whether the document contains `figure` as a separate number: `1.2` is not in `21.25`."""
        pattern = rf"(?<![\d.,]){re.escape(_plain(figure))}(?![\d]|[.,]\d)"
        return bool(figure.strip()) and re.search(pattern, _plain(self.text)) is not None


def is_heading(paragraph: str) -> bool:
    """Return whether `paragraph` is a heading, in Markdown or in capitals."""
    return "\n" not in paragraph and (paragraph.startswith("#") or paragraph.upper() == paragraph)


def _plain(text: str) -> str:
    return " ".join(text.replace("*", "").split())


@cache
def all_documents() -> tuple[Document, ...]:
    """Return every document of the library, by name."""
    return tuple(read_document(path) for path in sorted(FOLDER.iterdir()) if path.suffix in {".md", ".txt"})


def read_document(path: Path) -> Document:
    """Return the document in a file; its title is its first line."""
    text = path.read_text(encoding="utf-8-sig").strip()
    first_line = text.partition("\n")[0].strip("# ")
    title = capwords(first_line) if first_line.isupper() else first_line
    return Document(path.name, title, tuple(_paginate(text)))


def _paginate(text: str) -> list[str]:
    """Split at paragraphs, without a heading alone at the foot of a page."""
    pages: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", text):
        size = sum(map(len, pages[-1]))
        if pages[-1] and size + len(paragraph) > PAGE_CHARACTERS:
            carried: list[str] = []
            while len(pages[-1]) > 1 and is_heading(pages[-1][-1]):
                carried.insert(0, pages[-1].pop())
            pages.append(carried)
        pages[-1].append(paragraph)
    return ["\n\n".join(page) for page in pages]
