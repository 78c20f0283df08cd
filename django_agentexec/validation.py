"""What a row can hold: text and JSON made storable, or refused before anything is written.

Neither PostgreSQL nor UTF-8 takes everything that a Python string can hold, and a model's answer may
hold anything. Called by the operations, the verbs and enqueue.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django.utils.functional import Promise
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from .conf import conf
from .exceptions import ActivityNotFound, InvalidOption, ResultError
from .parsing import as_seconds, parse_id
from .translation import gettext as _

# A day from the edges of the calendar, beyond which dates of some time zones cannot be expressed.
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
MAX_COUNT = 2_147_483_647  # the largest number of an integer column
MAX_SECONDS = 1_000_000_000  # 31 years: longer than any timer is meant to run
MIN_AGE = 3_600  # seconds; what is older is deleted, so a smaller number without a unit is refused
MAX_NAME = 200  # characters of a task's name; the column's size
QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
MAX_ERROR = 2_000  # characters of an error's one-line text
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# C0 and C1 but for tabs and line ends, and what turns the direction of writing around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# What PostgreSQL's text (NUL) or UTF-8 (one half of a surrogate pair) cannot hold.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
# The same, escaped in JSON: an odd number of backslashes before the `u`. Halves that form a pair are fine.
_ESCAPED_NUL = re.compile(r"((?<!\\)(?:\\\\)*)\\u0000")


def storable_text(text: object) -> str:
    """Return `text` (a lazy translation or an exception, too) with a replacement for what no database holds."""
    return _UNSTORABLE.sub(_REPLACEMENT, str(text))


def one_line(error: BaseException) -> str:
    """Return an exception as `Type: text`, without line breaks and control characters, cut to a readable length."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an exception's own __str__ may be broken
        text = "(its text cannot be made)"
    return escape_controls(" ".join(f"{type(error).__name__}: {text}".split()))[:MAX_ERROR]


def escape_controls(text: str) -> str:
    """Return `text` with escapes (`\\x1b`) for what steers a terminal or reorders a line; line ends stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_storable(text: str) -> bool:
    """Return whether `storable_text` would leave it as it is."""
    return _UNSTORABLE.search(text) is None


def storable_json(text: str) -> str:
    """Return JSON with a replacement for each NUL character inside its strings."""
    return _ESCAPED_NUL.sub(rf"\1{_REPLACEMENT}", text)


def storable_value(value: Any) -> Any:
    """Return JSON values as every database holds them; what JSON does not represent becomes text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        try:
            return _storable_parts(to_jsonable_python(value, fallback=repr, serialize_unknown=True))
        except (PydanticSerializationError, ValueError, RecursionError):
            return storable_text(reprlib.repr(value))
    return value if is_storable(text) and not contains_nul(text) else _storable_parts(value)


def _storable_parts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {storable_text(key): _storable_parts(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable_parts(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return storable_text(value) if isinstance(value, str) else value


def contains_nul(text: str) -> bool:
    """Return whether a string inside this JSON holds a NUL character."""
    return "\\u0000" in text and _ESCAPED_NUL.search(text) is not None


def validate_id(agent_id: UUID | str) -> UUID:
    """Return an activity's id, also from its text; what cannot be one is the id of no activity."""
    if isinstance(agent_id, UUID):
        return agent_id
    try:
        return parse_id(agent_id)
    except (ValueError, TypeError):
        raise ActivityNotFound(agent_id) from None


def validate_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata as a dictionary; raise `InvalidOption` if it is not JSON with text as keys."""
    try:
        values = dict(metadata or {})
        # UTF-8 as the databases': what it cannot hold, they cannot either.
        text = json.dumps(values, allow_nan=False, ensure_ascii=False).encode().decode()
        to_json([[values]])  # two levels are the writer's; it serializes no more than 255
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(
            _("Metadata %(metadata)s cannot be stored as JSON: %(error)s.")
            % {"metadata": reprlib.repr(metadata), "error": error}
        ) from error
    if not all(isinstance(key, str) for key in values) or contains_nul(text):
        raise InvalidOption(
            _("Metadata %(metadata)s needs text as keys, and no NUL characters.") % {"metadata": reprlib.repr(values)}
        )
    if (size := len(text.encode())) > conf.MAX_METADATA_BYTES:
        raise InvalidOption(
            _(
                "The metadata has %(size)s bytes as JSON, but AGENTEXEC['MAX_METADATA_BYTES'] allows "
                "%(max_metadata_bytes)s. Metadata is for filters; large values belong in the context."
            )
            % {"size": f"{size:,}", "max_metadata_bytes": f"{conf.MAX_METADATA_BYTES:,}"}
        )
    stored: dict[str, Any] = json.loads(text)  # as every database gives it back, keys of inner dictionaries included
    return stored


def is_storable_moment(moment: datetime) -> bool:
    """Return whether every time zone, and each database, has a date for this moment (naive: local time)."""
    try:
        return EARLIEST <= (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)) <= LATEST
    except (OverflowError, ValueError):
        return False


def stored_time(option: str, moment: datetime) -> datetime:
    """Return a moment as the project's rows hold it: aware, or local and naive if USE_TZ is off.

    Raises `InvalidOption`, with the name of the option.
    """
    if not isinstance(moment, datetime):
        raise InvalidOption(f"{option}={moment!r} must be an aware datetime.")
    if not is_storable_moment(moment):
        raise InvalidOption(
            f"{option}={moment!r} is at the edge of the calendar: give a time from {EARLIEST.date()} to "
            f"{LATEST.date()} in UTC."
        )
    if not settings.USE_TZ:
        return moment if timezone.is_naive(moment) else timezone.make_naive(moment, timezone.get_default_timezone())
    if timezone.is_naive(moment):
        raise InvalidOption(f"{option}={moment!r} has no time zone; use django.utils.timezone.now() + ...")
    return moment


def validate_usage(usage: Mapping[str, int]) -> dict[str, int]:
    """Return token counts; raise `InvalidOption` if one of them is not a whole number from 0."""
    for name, count in usage.items():
        if not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidOption(f"Usage {name!r}: {count!r} is impossible; give whole numbers from 0.")
        if not is_storable(name):
            raise InvalidOption(f"Usage {name!r} has a name that no database can hold.")
    return dict(usage)


def checked_message(message: object) -> str:
    """Return a status message; raise `InvalidOption` for what is no text, has nothing to read, or is too long."""
    if not isinstance(message, str | Promise):
        raise InvalidOption(f"A status message is text, but this is {reprlib.repr(message)}.")
    text = str(message)
    if not text.strip():
        raise InvalidOption("A status message needs text: say what is being done.")
    if len(text) > conf.MAX_MESSAGE_LENGTH:
        raise InvalidOption(
            f"The message has {len(text):,} characters, but AGENTEXEC['MAX_MESSAGE_LENGTH'] allows "
            f"{conf.MAX_MESSAGE_LENGTH:,}. Log a summary; long text belongs in the result."
        )
    return text


def validate_percentage(value: float | None) -> int | None:
    """Return a percentage as a whole number; raise `InvalidOption` outside of 0 to 100."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise InvalidOption(f"A percentage of {value!r} is impossible; give a number from 0 to 100.")
    return int(value)


def validate_timeout(timeout: float | timedelta | None) -> float:
    """Return a time limit in seconds, infinite for None; raise `InvalidOption` for a negative or other value."""
    if timeout is None:
        return math.inf
    seconds = as_seconds(timeout)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise InvalidOption(
            f"timeout={timeout!r} is impossible; give seconds from 0, a timedelta, or None to wait without a limit."
        )
    return float(seconds)


def cutoff_of(older_than: float | timedelta) -> datetime:
    """Return the moment `older_than` (seconds or a timedelta) ago; raise `InvalidOption` for an impossible age.

    A small number of seconds is refused, too: it is more often meant as days, and what it deletes is gone.
    """
    seconds = as_seconds(older_than)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        raise InvalidOption(
            _("The age %(older_than)r is impossible: give seconds, or a timedelta.") % {"older_than": older_than}
        )
    if seconds < 0:
        raise InvalidOption(_("The age %(older_than)s is negative: give 0 or more.") % {"older_than": older_than})
    if not isinstance(older_than, timedelta) and 0 < seconds < MIN_AGE:
        text = _(
            "The age %(older_than)r is a number of seconds, and so small that days may be meant; nothing was deleted. "
            "Give timedelta(days=%(older_than)r) or timedelta(seconds=%(older_than)r)."
        )
        raise InvalidOption(text % {"older_than": older_than})
    with suppress(OverflowError):
        cutoff = timezone.now() - timedelta(seconds=seconds)
        if is_storable_moment(cutoff):
            return cutoff
    raise InvalidOption(
        _("The age %(older_than)s is too large: it reaches before the first date.") % {"older_than": older_than}
    )


def json_result(value: Any) -> Any:
    """Return a result as JSON values (models, dates and ids as text), or raise `ResultError`."""
    try:
        text = storable_json(_json_text(value))
        from_json(text)  # which reads no deeper than everybody who gets the result
        return json.loads(text)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ResultError(f"A result of type {type(value).__name__} cannot be stored as JSON: {error}") from error


def jsonable(adapter: TypeAdapter[Any], value: Any, **options: Any) -> Any:
    """Return a value as JSON values, with a replacement for each character that no database holds."""
    return to_jsonable_python(_cleaned(adapter.dump_python(value, **options)), inf_nan_mode="null")


def _json_text(value: Any) -> str:
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except PydanticSerializationError:
        # Half a surrogate pair, as a model may send it, cannot be encoded; anything else fails here, too.
        return to_json(jsonable(_ANYTHING, value)).decode()


def _cleaned(content: Any) -> Any:
    if isinstance(content, str):
        return storable_text(content)
    if isinstance(content, dict):
        return {_cleaned(key): _cleaned(value) for key, value in content.items()}
    return [_cleaned(item) for item in content] if isinstance(content, (list, tuple, set, frozenset)) else content
