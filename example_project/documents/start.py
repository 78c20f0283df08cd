"""Starts runs on documents, and takes uploads in. Called by the pages and the demo."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.utils.text import get_valid_filename

from django_agentexec import ActivityHandle, enqueue

from .catalogue import REPORTS, Kind, label
from .library import Document
from .schemas import ContractContext, ResearchContext
from .shelf import OWNER_KEY, Shelf

MAX_BYTES = 64_000  # some 25 pages: what an agent gets through in its turns
MAX_DOCUMENTS = 20  # of one visitor
MAX_NAME = 80  # characters
SUFFIXES = (".md", ".txt")
_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f]")


def start(owner: str, document: Document, kind: Kind) -> ActivityHandle:
    """Have an agent work on `document` for the user called `owner`."""
    # Whose it is, and what lists show of it.
    tags = {OWNER_KEY: owner, "title": label(document)}
    if kind == "contract":
        return enqueue("review_contract", ContractContext(document=document.name), metadata=tags)
    company = REPORTS.get(document.name, document.title)
    return enqueue("research_company", ResearchContext(company=company, document=document.name), metadata=tags)


def store(shelf: Shelf, file: UploadedFile[bytes]) -> Document:
    """Put an uploaded file on the shelf. Raises Django's `ValidationError` for what is no short text."""
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
    """Return the text of a file: what it is, is told by its content, not by what the browser says."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError(f"{name} is no text in UTF-8.") from None
    if _NO_TEXT.search(text):
        raise ValidationError(f"{name} holds characters that no text has.")
    if not text.strip():
        raise ValidationError(f"{name} is empty.")
    return text
