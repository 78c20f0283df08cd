"""Template filters that show a stored result as text."""

from __future__ import annotations

import json

from django import template

from example_project.documents.schemas import reservations

register = template.Library()


@register.filter
def as_json(value: object) -> str:
    """Return readable JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


register.filter("reservations", reservations)
