"""The agent's tools to read the documents on the visitor's shelf, which is the context of the run."""

from __future__ import annotations

from agents import RunContextWrapper, Tool, function_tool

from .shelf import Shelf

Run = RunContextWrapper[Shelf]


@function_tool
def list_documents(run: Run) -> str:
    """List the documents you may read: name, number of pages and title, one a line."""
    return "\n".join(
        f"{document.name} | {len(document.pages)} pages | {document.title}" for document in run.context.documents()
    )


@function_tool
def read_page(run: Run, document: str, page: int) -> str:
    """Read one page of a document.

    Args:
        document: The document's name, as listed.
        page: The page's number, from 1.
    """
    found = run.context.get(document)
    return f"[{found.name}, page {page} of {len(found.pages)}]\n\n{found.page(page)}"


@function_tool
def search_document(run: Run, document: str, query: str) -> str:
    """Find the paragraphs of a document that match some words best.

    Args:
        document: The document's name, as listed.
        query: A few words, for example "termination notice".
    """
    passages = run.context.get(document).search(query)
    if not passages:
        return f"Nothing in {document} matches {query!r}."
    return "\n\n".join(f"[page {passage.page}]\n{passage.text}" for passage in passages)


READING_TOOLS: list[Tool] = [list_documents, read_page, search_document]
