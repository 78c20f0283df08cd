"""The German catalogue is complete: every marked text has a translation with the same placeholders."""

from __future__ import annotations

import gettext
import re

from django.db.models import Field
from django.utils.functional import Promise

from django_agentexec import models
from django_agentexec.models import Activity
from tests.support.catalogue import GERMAN, Entry, entries, marked

PLACEHOLDER = re.compile(r"%\(\w+\)[-+ 0]*\d*(?:\.\d+)?[sdrgf]|(?<![{\w])\{\w+\}|%%")


def test_every_marked_text_is_in_the_catalogue() -> None:
    known = {(entry.context, entry.ids[0]) for entry in entries()}

    missing = sorted({f"{path.name}: {key}" for path, key in marked() if key not in known})

    assert len(known) > 1_000
    assert missing == [], "add them to locale/de with `make messages`"


def test_every_entry_has_a_final_translation() -> None:
    for entry in entries():
        assert "fuzzy" not in entry.flags, entry
        assert len(entry.texts) == len(entry.ids), entry
        assert all(text.strip() for text in entry.texts), entry


def test_translations_have_the_placeholders_of_their_texts() -> None:
    for entry in entries():
        expected = [set(PLACEHOLDER.findall(text)) for text in entry.ids]
        assert [set(PLACEHOLDER.findall(text)) for text in entry.texts] == expected, entry


def test_translations_keep_the_space_around_their_texts() -> None:
    for entry in entries():
        for text, german in zip(entry.ids, entry.texts, strict=True):
            assert (text[0].isspace(), text[-1].isspace()) == (german[0].isspace(), german[-1].isspace()), entry


def test_no_text_is_translated_twice() -> None:
    keys = [(entry.context, entry.ids[0]) for entry in entries()]

    assert len(keys) == len(set(keys))


def test_the_compiled_catalogue_is_that_of_the_source() -> None:
    with GERMAN.with_suffix(".mo").open("rb") as file:
        compiled = {key: text for key, text in gettext.GNUTranslations(file)._catalog.items() if key}  # type: ignore[attr-defined]  # not public

    assert compiled == {key: text for entry in entries() for key, text in _compiled(entry)}


def _compiled(entry: Entry) -> list[tuple[object, str]]:
    key = f"{entry.context}\x04{entry.ids[0]}" if entry.context else entry.ids[0]
    return [(key, entry.texts[0])] if len(entry.ids) == 1 else [((key, n), text) for n, text in enumerate(entry.texts)]


def test_models_mark_their_names_choices_and_help() -> None:
    for model in models.__dict__.values():
        if not isinstance(model, type) or not issubclass(model, Activity.__base__) or model._meta.abstract:
            continue
        assert isinstance(model._meta.verbose_name, Promise), model
        for column in model._meta.get_fields():
            if not isinstance(column, Field) or column.auto_created or column.name == "id":
                continue
            assert isinstance(column.verbose_name, Promise), (model, column.name)
            assert not column.help_text or isinstance(column.help_text, Promise), (model, column.name)
            assert all(isinstance(label, Promise) for _value, label in column.choices or ()), (model, column.name)
