"""The parts of the list around its rows: views, filters, bulk actions, and cells with the labels of narrow pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.templatetags.admin_list import items_for_result, result_headers
from django.contrib.admin.views.main import ChangeList
from django.forms import Media
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import Activity
from .addresses import socket_path
from .filters import PARENT, MetadataFilter
from .formatting import count_text
from .pagination import AtLeast
from .status import short_id
from .texts import script_texts

_SIMPLE_TEMPLATES = ("admin/filter.html", "unfold/components/filter.html")
_KINDS = {"cancel_selected": "cancel", "retry_selected": "retry", "delete_selected": "delete"}


@dataclass(frozen=True)
class View:
    """A fixed question to the list, one click away."""

    label: str
    url: str
    is_current: bool


@dataclass(frozen=True)
class Chip:
    """A filter in use, and the address of the list without it."""

    title: str
    text: str
    url: str


@dataclass(frozen=True)
class Row:
    """A row with its cells."""

    activity: Activity
    label: str
    cells: Sequence[SafeString]
    is_retryable: bool


@dataclass(frozen=True)
class BulkAction:
    """A button of the bar below the list."""

    name: str
    label: str
    kind: str


def list_context(request: HttpRequest, admin: Any, cl: ChangeList) -> dict[str, Any]:
    """Return the template's values."""
    headers = list(result_headers(cl))
    chips = list(_chips(cl))
    metadata = next((spec for spec in cl.filter_specs if isinstance(spec, MetadataFilter)), None)
    return {
        "views": _views(cl),
        "chips": chips,
        "clear_url": cl.get_query_string({}, [name for name in cl.params if name != "q"]) if chips else "",
        "menu": _menu(cl),
        "metadata_filter": metadata,
        "headers": headers,
        "rows": list(_rows(cl, headers)),
        "bulk_actions": _bulk_actions(request, admin),
        "checkbox_name": ACTION_CHECKBOX_NAME,
        "total": _total(cl),
        "newer_url": cl.get_query_string({"p": cl.page_num - 1}) if cl.page_num > 1 else "",
        "older_url": cl.get_query_string({"p": cl.page_num + 1}) if cl.page_num < cl.paginator.num_pages else "",
        "socket": socket_path(),
        "texts": script_texts(),
        "media": _own_media(cl),
    }


def _own_media(cl: ChangeList) -> Media:
    """Return the files of a subclass and of its filters, without the scripts of Django's own list."""
    media: Any = cl.model_admin.media
    scripts = [one for one in media._js if not str(one).startswith("admin/js/")]
    return Media(css=media._css, js=scripts)


def _views(cl: ChangeList) -> list[View]:
    names = ("life", "status", "waiting_for")
    chosen = {name: value for name in names if (value := _value(cl, name))}
    views: list[tuple[str, dict[str, str]]] = [
        (_("All"), {}),
        (_("Active"), {"life": "active"}),
        (_("Needs approval"), {"waiting_for": "decision"}),
        (_("Failed"), {"status": "error"}),
    ]
    return [
        View(label, cl.get_query_string(dict(own), [*(name for name in names if name not in own), "p"]), chosen == own)
        for label, own in views
    ]


def _value(cl: ChangeList, name: str) -> str:
    return str(_first(cl.get_filters_params().get(name) or ""))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else value


def _chips(cl: ChangeList) -> Iterator[Chip]:
    shown_by_view = [view.is_current for view in _views(cl)]
    for spec in cl.filter_specs:
        if isinstance(spec, MetadataFilter):
            yield from (Chip("", choice["display"], choice["query_string"]) for choice in spec.choices(cl))
            continue
        names = [name for name in spec.expected_parameters() if name]
        if not any(name in cl.params for name in names):
            continue
        if any(shown_by_view[1:]) and names in (["life"], ["status"], ["waiting_for"]):
            continue
        selected = [choice for choice in spec.choices(cl) if choice.get("selected")]
        text = ", ".join(str(choice["display"]) for choice in selected) or str(_value(cl, names[0]))
        yield Chip(str(spec.title).capitalize(), text, cl.get_query_string({}, [*names, "p"]))
    if parent := _value(cl, PARENT):
        yield Chip(_("Parent"), parent[:18], cl.get_query_string({}, [PARENT, "p"]))


def _menu(cl: ChangeList) -> list[dict[str, Any]]:
    """Return the filters with their choices; a filter with another template is rendered by that."""
    found = []
    for spec in cl.filter_specs:
        if isinstance(spec, MetadataFilter):
            continue
        is_simple = getattr(spec, "template", "") in _SIMPLE_TEMPLATES
        choices = list(spec.choices(cl)) if is_simple else []
        found.append({"spec": spec, "title": str(spec.title).capitalize(), "is_simple": is_simple, "choices": choices})
    return found


def _rows(cl: ChangeList, headers: Sequence[dict[str, Any]]) -> Iterator[Row]:
    for activity in cl.result_list:
        cells = [_labeled(cell, header) for cell, header in zip(_cells(cl, activity), headers, strict=False)]
        label = f"{activity.agent_type} {short_id(activity)}"
        yield Row(activity, label, cells, activity.is_retryable)


def _cells(cl: ChangeList, activity: Activity) -> Iterator[SafeString]:
    for cell in items_for_result(cl, activity, None):
        yield SafeString(cell)


def _labeled(cell: SafeString, header: dict[str, Any]) -> SafeString:
    """Return a cell with the title of its column, which a narrow page shows before the value."""
    start, space, rest = cell.partition(" ")
    label = "" if "action-checkbox" in header.get("class_attrib", "") else str(header["text"])
    attribute = format_html(' data-label="{}"', label) if label else ""
    return SafeString(f"{start}{attribute}{space}{rest}")


def _bulk_actions(request: HttpRequest, admin: Any) -> list[BulkAction]:
    labels = {"cancel": _("Cancel"), "retry": _("Run again"), "delete": _("Delete")}
    found = []
    for name, action in admin.get_actions(request).items():
        kind = _KINDS.get(name, "")
        # An object since Django 6.1, a tuple before.
        description = action.description if hasattr(action, "description") else action[2]
        found.append(BulkAction(name, labels.get(kind) or str(description), kind))
    return found


def _total(cl: ChangeList) -> str:
    shown = len(cl.result_list)
    total = cl.result_count
    text = str(total) if isinstance(total, AtLeast) else count_text(total)
    return ngettext("%(shown)s of %(total)s activity", "%(shown)s of %(total)s activities", int(total)) % {
        "shown": count_text(shown),
        "total": text,
    }
