"""The form that starts a run."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from .catalogue import kind_of
from .library import Document
from .shelf import Shelf
from .start import SUFFIXES, store

KINDS = [("contract", "Review it as a contract"), ("report", "Research the company it reports on")]


class StartForm(forms.Form):
    """Form with a document of the visitor's shelf or an upload, and the task to run."""

    document = forms.ChoiceField(required=False)
    upload = forms.FileField(
        required=False, widget=forms.ClearableFileInput(attrs={"accept": ",".join((*SUFFIXES, "text/plain"))})
    )
    kind = forms.ChoiceField(choices=[("", ""), *KINDS], required=False)

    def __init__(self, shelf: Shelf, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shelf = shelf
        field = self.fields["document"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", ""), *((document.name, document.title) for document in shelf.documents())]

    def clean(self) -> dict[str, Any]:
        """Find or store the document, and determine its kind."""
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        if not cleaned["upload"] and not cleaned["document"]:
            raise ValidationError("Pick a document, or upload one.")
        known = kind_of(cleaned["document"]) if not cleaned["upload"] else None
        cleaned["kind"] = known or cleaned["kind"] or "contract"
        document: Document = (
            store(self.shelf, cleaned["upload"]) if cleaned["upload"] else self.shelf.get(cleaned["document"])
        )
        cleaned["found"] = document
        return cleaned
