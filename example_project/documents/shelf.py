"""The documents that one visitor, and the agents that work for them, may read: the library and their uploads."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.core.files.storage import FileSystemStorage

from django_agentexec.models import Activity

from .library import Document, DocumentNotFound, all_documents, read_document

OWNER_KEY = "visitor"
"""The metadata that tells whose an activity is. The policy stamps it, so nobody can claim another's."""


class Uploads(FileSystemStorage):
    """A visitor's folder. A document never takes the name of one of the library."""

    def exists(self, name: str) -> bool:
        """Whether the name is taken."""
        return super().exists(name) or name in {document.name for document in all_documents()}


@dataclass(frozen=True)
class Shelf:
    """What `owner`, a user name, may read. Without an owner it is the library alone."""

    owner: str = ""

    @classmethod
    async def of(cls, agent_id: UUID) -> Shelf:
        """Return the shelf of whom an activity belongs to."""
        activity = await Activity.objects.only("metadata").aget(pk=agent_id)
        return cls(str(activity.metadata.get(OWNER_KEY, "")))

    @property
    def uploads(self) -> Uploads:
        """The owner's own documents. The folder's name tells nothing, and needs no escaping."""
        digest = hashlib.sha256(self.owner.encode()).hexdigest()[:32]
        return Uploads(location=Path(settings.MEDIA_ROOT) / digest)

    def uploaded(self) -> list[Document]:
        """Return the owner's own documents, by name."""
        folder = Path(self.uploads.location)
        if not self.owner or not folder.is_dir():
            return []
        return [read_document(path) for path in sorted(folder.iterdir()) if path.is_file()]

    def documents(self) -> list[Document]:
        """Return all there is to read."""
        return [*self.uploaded(), *all_documents()]

    def get(self, name: str) -> Document:
        """Return the document called `name`; raises `DocumentNotFound`, naming the closest, if there is none."""
        documents = {document.name: document for document in self.documents()}
        if name in documents:
            return documents[name]
        names = difflib.get_close_matches(name, documents, 2) or list(documents)
        raise DocumentNotFound(f"There is no document {name!r}. There are: {', '.join(names)}.")
