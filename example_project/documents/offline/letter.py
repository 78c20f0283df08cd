"""Rules by which the offline model writes a letter: read the first page, send the letter, report what became of it."""

from __future__ import annotations

from example_project.documents.schemas import Letter

from .conversation import Conversation, ToolCall, Turn
from .reading import report

SENT = "was sent"


def next_turn(conversation: Conversation) -> Turn:
    """Return the next calls, or the outcome when there is one."""
    document = conversation.asked("Document")
    pages = conversation.pages()
    if not pages and not conversation.outputs("read_page"):
        return [report(f"Reading {document}", 10), ToolCall("read_page", {"document": document, "page": 1})]
    title = pages[1].partition("\n")[0].strip("# ") if 1 in pages else document
    recipient = conversation.asked("Recipient")
    if not (outcomes := conversation.outputs("send_letter")):
        text = (
            "Dear Sir or Madam,\n\n"
            f"we are reviewing “{title}” before it is signed. Please name a contact for our questions.\n\n"
            "Yours faithfully,\nThe reading room"
        )
        return [ToolCall("send_letter", {"recipient": recipient, "subject": f"Contact for {title}", "text": text})]
    was_sent = SENT in outcomes[-1]
    headline = f"The letter to {recipient} was sent." if was_sent else f"The letter was not sent. {outcomes[-1]}"
    return Letter(headline=headline, recipient=recipient, was_sent=was_sent)
