"""The search box of the list: ids, tasks and metadata, all found by an index."""

from __future__ import annotations

import re
from uuid import UUID

from django.db.models import Q, QuerySet

from ..expressions import parse_candidates
from ..ids import HEX_DIGITS, id_range
from ..models import Activity, ActivityQuerySet
from .filters import task_names
from .metadata import known_keys

_MIN_PREFIX = 6  # digits of an id that are worth a look; a shorter word is rather a name
_LIKE_AN_ID = re.compile(r"[0-9a-fA-F]{8}-")  # and like nothing else: no need to look elsewhere
_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]+")
MAX_WORDS = 5


def search(activities: QuerySet[Activity], text: str) -> ActivityQuerySet:
    """Return those that every word of `text` fits: an id or its beginning, a part of a task's name, `key=value`
    of the metadata, or a value of it under one of the keys that recent activities have.

    Two queries more for words that are no id and no `key=value`.
    """
    assert isinstance(activities, ActivityQuerySet)
    for word in text.split()[:MAX_WORDS]:
        activities = _with_word(activities, word)
    return activities


def _with_word(activities: ActivityQuerySet, word: str) -> ActivityQuerySet:
    key, equals, value = word.partition("=")
    if key and equals:
        return activities.for_metadata_text(key, value)
    ids = _ids_of(word)
    if ids and (ids[0] == ids[1] or _LIKE_AN_ID.match(word)):
        return activities.filter(agent_id__range=ids)
    values = parse_candidates(word)
    found = [activities.metadata_condition(key, values) for key in known_keys(activities)]
    tasks = [name for name in task_names() if word.lower() in name.lower()]
    found.append(Q(agent_type__in=tasks) if tasks else None)
    found.append(Q(agent_id__range=ids) if ids else None)
    conditions = [condition for condition in found if condition is not None]
    return activities.filter(Q(*conditions, _connector=Q.OR)) if conditions else activities.none()


def _ids_of(word: str) -> tuple[UUID, UUID] | None:
    """Return the first and last id that begin with `word`, or None if none can."""
    digits = word.replace("-", "")
    if not _HEXADECIMAL.fullmatch(word) or not _MIN_PREFIX <= len(digits) <= HEX_DIGITS:
        return None
    return id_range(digits)
