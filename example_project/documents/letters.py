"""The letter to the other party of a contract: its agent, and the tool that sends it once a person has approved."""

from __future__ import annotations

import hashlib

from agents import Agent, Model, RunContextWrapper, Tool, function_tool
from asgiref.sync import sync_to_async
from django.core.files.base import ContentFile

from django_agentexec import tool_key

from .schemas import Letter
from .shelf import Shelf
from .tools import read_page

LETTER_WRITER = """
You write letters to the other parties of contracts. You are given the name of a document.
Read its first page, and send a short letter with send_letter that asks the other party to name a contact.
If the letter is not approved, do not try again: report the reason.
"""


@function_tool(needs_approval=True)
async def send_letter(run: RunContextWrapper[Shelf], recipient: str, subject: str, text: str) -> str:
    """Send a letter by post. A person must approve each letter.

    Args:
        recipient: The recipient's name.
        subject: The subject, one line.
        text: The whole letter.
    """
    # The example keeps its letters in a folder. The key is the same in each attempt: no letter is sent twice.
    name = f"{hashlib.sha256(tool_key().encode()).hexdigest()[:16]}.txt"
    letters = run.context.letters
    if not await sync_to_async(letters.exists)(name):
        await sync_to_async(letters.save)(
            name, ContentFile(f"To: {recipient}\nSubject: {subject}\n\n{text}\n".encode())
        )
    return f"The letter to {recipient} was sent."


def letter_writer(model: Model, report_status: Tool, report_status_prompt: str) -> Agent[Shelf]:
    """Return the agent that writes a letter; its output is a `Letter`."""
    return Agent(
        name="Letter writer",
        instructions=f"{LETTER_WRITER}\n{report_status_prompt}",
        tools=[read_page, send_letter, report_status],
        output_type=Letter,
        model=model,
    )
