"""The documents that a visitor and the visitor's agents may read: the library and the visitor's uploads."""

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
"""The metadata key of an activity's owner. The policy stamps it, so no request can set it."""


class Uploads(FileSystemStorage):
    """Storage of a visitor's folder. An upload never gets the name of a document of the library."""

    def exists(self, name: str) -> bool:
        """Return whether the name is taken."""
        return super().exists(name) or name in {document.name for document in all_documents()}


@dataclass(frozen=True)
class Shelf:
    """The documents that `owner`, a user name, may read. Without an owner, the library only."""

    owner: str = ""

    @classmethod
    async def of(cls, agent_id: UUID) -> Shelf:
        """Return the shelf of the owner of an activity."""
        activity = await Activity.objects.only("metadata").aget(pk=agent_id)
        return cls(str(activity.metadata.get(OWNER_KEY, "")))

    @property
    def uploads(self) -> Uploads:
        """The owner's uploads. The folder's name is a digest: it reveals nothing and needs no escaping."""
        digest = hashlib.sha256(self.owner.encode()).hexdigest()[:32]
        return Uploads(location=Path(settings.MEDIA_ROOT) / digest)

    @property
    def letters(self) -> FileSystemStorage:
        """The letters that agents have sent for the owner."""
        digest = hashlib.sha256(self.owner.encode()).hexdigest()[:32]
        return FileSystemStorage(location=Path(settings.MEDIA_ROOT) / "letters" / digest)

    def uploaded(self) -> list[Document]:
        """Return the owner's uploaded documents, by name."""
        folder = Path(self.uploads.location)
        if not self.owner or not folder.is_dir():
            return []
        return [read_document(path) for path in sorted(folder.iterdir()) if path.is_file()]

    def documents(self) -> list[Document]:
        """Return all documents of the shelf."""
        return [*self.uploaded(), *all_documents()]

    def get(self, name: str) -> Document:
        """Return the document called `name`; raises `DocumentNotFound`, naming the closest, if there is none."""
        documents = {document.name: document for document in self.documents()}
        if name in documents:
            return documents[name]
        names = difflib.get_close_matches(name, documents, 2) or list(documents)
        raise DocumentNotFound(f"There is no document {name!r}. There are: {', '.join(names)}.")
