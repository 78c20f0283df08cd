"""Names of the users who caused what the page of an activity shows."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from ..models import Activity
from ..redaction import public_actor
from .detail import Timeline


def name_actors(activity: Activity, timeline: Timeline) -> str:
    """Name the actor of each line, and return the name of who enqueued the activity; one query if there are any."""
    lines = [line for attempt in timeline.attempts for line in attempt.lines if line.actor]
    names = user_names(
        {str(line.actor) for line in lines} | ({activity.enqueued_by} if activity.enqueued_by else set())
    )
    for line in lines:
        line.actor_name = names.get(str(line.actor), line.actor)  # type: ignore[attr-defined]  # for the template
    return names.get(activity.enqueued_by or "", activity.enqueued_by or "")


def actor_names(actors: Iterable[str | None], *, monitors: bool) -> dict[str, str]:
    """Return what pages show of each actor: the name of a user, or its text; one query if there are any.

    Users without the monitor permission do not read the account of a terminal, as over REST.
    """
    given = {actor for actor in actors if actor}
    texts = {actor: actor if monitors else public_actor(actor) for actor in given}
    return {**texts, **user_names(given)} if given else {}


def user_names(actors: set[str]) -> dict[str, str]:
    """Return the names of those actors that are users, by the text of their primary key."""
    model = get_user_model()
    keys = []
    for actor in actors:
        try:
            key = model._meta.pk.to_python(actor)
            model._meta.pk.run_validators(key)
        except ValidationError:
            continue  # a terminal, or a number that no database compares
        keys.append(key)
    if not keys:
        return {}
    return {str(user.pk): str(user) for user in model._default_manager.filter(pk__in=keys)}
