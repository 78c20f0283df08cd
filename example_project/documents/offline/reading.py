"""Rules by which both planners read a document (find it, page by page, then search) and split its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .conversation import Conversation, ToolCall, Turn

HEADING = re.compile(r"#+ (?P<markdown>.+)|(?P<capitals>(?:ARTICLE )?\d+\. [A-Z][A-Z ',]+(?:\([^)]*\))?)$")
NUMBERING = re.compile(r"^(?:ARTICLE )?[A-Z]?\d+\. ?")
LABELED_LINE = re.compile(r"[A-Z][^.:]{2,60}: \S")
CLAUSE = re.compile(r"(?P<number>[A-Z]?\d+\.\d+)\s+(?P<text>.+)", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"(])")
MONEY = re.compile(r"(?:[£$€]|EUR )\s?\d+(?:,\d{3})*(?:\.\d+)?(?: (?:million|billion)|[mbn]+\b)?")


def next_reading_turn(conversation: Conversation, queries: list[str]) -> Turn | None:
    """Return the calls to make next, or None when the document is read and searched for all `queries`.

    Reports its progress at every step, from 5 percent to 90.
    """
    document = conversation.asked("Document")
    if conversation.must_answer:
        return None
    if not (listings := conversation.outputs("list_documents")):
        return [report(f"Looking for {document}", 5), ToolCall("list_documents", {})]
    listed = re.search(rf"^{re.escape(document)} \| (\d+) pages", listings[-1], re.MULTILINE)
    if listed is None:
        return None
    number_of_pages, pages_tried = int(listed[1]), len(conversation.outputs("read_page"))
    if pages_tried < number_of_pages:
        page = pages_tried + 1
        return [
            report(f"Reading page {page} of {number_of_pages}", 10 + 55 * pages_tried // number_of_pages),
            ToolCall("read_page", {"document": document, "page": page}),
        ]
    searches = len(conversation.outputs("search_document"))
    if searches < len(queries):
        query = queries[searches]
        return [
            report(f"Looking closer at {query}", 65 + 25 * searches // len(queries)),
            ToolCall("search_document", {"document": document, "query": query}),
        ]
    return None


def report(message: str, percentage: int) -> ToolCall:
    """Return a progress report."""
    return ToolCall("report_status", {"message": message, "percentage": percentage})


@dataclass(frozen=True)
class Paragraph:
    """A paragraph and its heading. `clause` is its number in a contract, else empty."""

    heading: str
    clause: str
    text: str

    @property
    def sentences(self) -> list[str]:
        """The paragraph's sentences."""
        return SENTENCE_END.split(self.text)


def paragraphs(conversation: Conversation) -> Iterator[Paragraph]:
    """Yield the paragraphs of all pages read, without headings and tables."""
    heading = ""
    pages = conversation.pages()
    for number in sorted(pages):
        for block in re.split(r"\n\s*\n", pages[number]):
            if found := HEADING.match(block):
                heading = NUMBERING.sub("", found["markdown"] or found["capitals"]).strip().lower()
            elif all(LABELED_LINE.match(line) for line in block.splitlines()):
                for line in block.splitlines():
                    yield Paragraph(line.partition(":")[0].lower(), "", line)
            elif not block.startswith(("|", "    ")):
                clause = CLAUSE.match(block)
                text = clause["text"] if clause else block
                yield Paragraph(heading, clause["number"] if clause else "", " ".join(text.split()))
