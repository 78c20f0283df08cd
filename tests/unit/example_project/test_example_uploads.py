"""The example's shelves: what may be uploaded, under which name it is kept, and who can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile

from example_project.documents.library import DocumentNotFound
from example_project.documents.shelf import Shelf
from example_project.documents.start import MAX_BYTES, MAX_DOCUMENTS, store


@pytest.fixture(autouse=True)
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "uploads"
    return tmp_path


def upload(name: str, content: bytes = b"# A title\n\nSome text.") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def test_an_upload_is_read_like_a_document_of_the_library() -> None:
    document = store(Shelf("ada"), upload("My notes.md"))

    assert (document.name, document.title) == ("My_notes.md", "A title")
    assert Shelf("ada").get("My_notes.md").page(1) == "# A title\n\nSome text."


def test_only_its_owner_and_their_agents_can_read_it() -> None:
    store(Shelf("ada"), upload("notes.md"))

    for other in (Shelf("bob"), Shelf("")):
        assert "notes.md" not in [document.name for document in other.documents()]
        with pytest.raises(DocumentNotFound):
            other.get("notes.md")


@pytest.mark.parametrize("owner", ["..", ".", "a/b", "../../etc"])
def test_no_user_name_leads_out_of_the_folder(owner: str, data_dir: Path) -> None:
    store(Shelf(owner), upload("notes.md"))

    (stored,) = [path for path in data_dir.rglob("*") if path.is_file()]
    assert stored.parent.parent == data_dir / "uploads"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("a b\tc!.TXT", "a_bc.txt"),
        ("x" * 200 + ".md", "x" * 80 + ".md"),
        ("<script>.md", "script.md"),
        ("Prüfung.txt", "Prüfung.txt"),
    ],
)
def test_names_are_made_harmless(name: str, kept: str) -> None:
    assert store(Shelf("ada"), upload(name)).name == kept


def test_a_name_that_is_taken_gets_another_even_if_the_library_has_taken_it() -> None:
    names = [store(Shelf("ada"), upload(name)).name for name in ("a.md", "a.md", "commercial-lease.txt")]

    assert len({*names, "commercial-lease.txt"}) == 4
    assert Shelf("ada").get("commercial-lease.txt").title == "Commercial Lease"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (upload("a.pdf", b"%PDF-1.7"), "only text"),
        (upload("a.html"), "only text"),
        (upload("md"), "only text"),
        (upload(".md"), "only text"),
        (upload("a.txt", b"%PDF-1.7\n\xe2\xe3\xcf\xd3"), "UTF-8"),
        (upload("a.txt", b"\x00\x01\x02"), "characters that no text has"),
        (upload("a.txt", b"  \n "), "empty"),
        (upload("a.txt", b"x" * (MAX_BYTES + 1)), "64,000 are the limit"),
    ],
)
def test_what_is_no_short_text_is_refused(file: SimpleUploadedFile, reason: str, data_dir: Path) -> None:
    with pytest.raises(ValidationError, match=reason):
        store(Shelf("ada"), file)

    assert not (data_dir / "uploads").exists()


def test_a_shelf_has_an_end() -> None:
    for number in range(MAX_DOCUMENTS):
        store(Shelf("ada"), upload(f"{number}.md"))

    with pytest.raises(ValidationError, match="limit"):
        store(Shelf("ada"), upload("one-more.md"))
