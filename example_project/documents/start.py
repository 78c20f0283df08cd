"""Functions that start runs on documents and store uploads."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.utils.text import get_valid_filename

from django_agentexec import Run, enqueue

from .catalogue import REPORTS, Kind, label
from .library import Document
from .research import PortfolioContext
from .schemas import ContractContext, LetterContext, ResearchContext
from .shelf import OWNER_KEY, Shelf

MAX_BYTES = 64_000  # about 25 pages: as many as an agent can read in its turns
MAX_DOCUMENTS = 20  # of one visitor
MAX_NAME = 80  # characters
SUFFIXES = (".md", ".txt")
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f]")


def start(owner: str, document: Document, kind: Kind) -> Run:
    """Enqueue a task on `document` for the user with the name `owner`."""
    # The owner, and the title that lists show.
    tags = {OWNER_KEY: owner, "title": label(document)}
    if kind == "contract":
        return enqueue("review_contract", ContractContext(document=document.name), metadata=tags)
    company = REPORTS.get(document.name, document.title)
    return enqueue("research_company", ResearchContext(company=company, document=document.name), metadata=tags)


def compare_companies(owner: str) -> Run:
    """Enqueue the comparison of the library's companies for the user with the name `owner`."""
    # No title: its children inherit the metadata, and each of them is about one document.
    return enqueue("portfolio_pipeline", PortfolioContext(), metadata={OWNER_KEY: owner})


def write_letter(owner: str, document: Document, recipient: str) -> Run:
    """Enqueue a letter about `document` for the user with the name `owner`; it waits for an approval."""
    tags = {OWNER_KEY: owner, "title": f"Letter to {recipient}"}
    return enqueue("contract_letter", LetterContext(document=document.name, recipient=recipient), metadata=tags)


def store(shelf: Shelf, file: UploadedFile[bytes]) -> Document:
    """Store an uploaded file on the shelf. Raises Django's `ValidationError` if it is not a short text."""
    name = get_valid_filename(str(file.name or "document"))
    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix}".lower() not in SUFFIXES or not stem.strip("._-"):
        raise ValidationError(f"{file.name}: only text can be read, in a file that ends in {' or '.join(SUFFIXES)}.")
    if (file.size or 0) > MAX_BYTES:
        raise ValidationError(f"{file.name} has {file.size:,} bytes; {MAX_BYTES:,} are the limit.")
    if len(shelf.uploaded()) >= MAX_DOCUMENTS:
        raise ValidationError(f"You have {MAX_DOCUMENTS} documents, which is the limit.")
    content = _checked(str(file.name), file.read())
    stored = shelf.uploads.save(f"{stem.lstrip('.')[:MAX_NAME]}.{suffix.lower()}", ContentFile(content.encode()))
    return shelf.get(stored)


def _checked(name: str, content: bytes) -> str:
    """Return the text of a file. The content is checked, not the type that the browser sends."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError(f"{name} is no text in UTF-8.") from None
    if _NO_TEXT.search(text):
        raise ValidationError(f"{name} holds characters that no text has.")
    if not text.strip():
        raise ValidationError(f"{name} is empty.")
    return text
