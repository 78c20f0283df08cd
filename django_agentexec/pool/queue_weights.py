"""The queues of a pool and their weights, from `--queues` or the settings."""

from __future__ import annotations

from collections.abc import Mapping

from ..conf import conf
from ..exceptions import InvalidOption
from ..parsing import parse_digits
from ..tasks.options import validate_queue

MAX_WEIGHT = 1_000


def read_queues(text: str | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return queues and their weights, none if they are served in order. Raises `InvalidOption`.

    `text` is the option: `high,low` or `high:3,low:1`; without it, the settings apply.
    """
    if text:
        parts = [part.strip().partition(":") for part in text.split(",")]
        weights = {validate_queue(name): _weight(name, number) for name, colon, number in parts if colon}
        queues = tuple(dict.fromkeys(validate_queue(name) for name, _, _ in parts))
    else:
        queues = tuple(dict.fromkeys(map(validate_queue, conf.QUEUES)))
        weights = check_weights(conf.QUEUE_WEIGHTS)
        weights = {name: weight for name, weight in weights.items() if name in queues}
    if weights and (missing := [name for name in queues if name not in weights]):
        raise InvalidOption(
            f"Queue {missing[0]!r} has no weight, but {next(iter(weights))!r} has: give all queues a weight, or none."
        )
    return queues, tuple(weights[name] for name in queues) if weights else ()


def check_weights(given: Mapping[str, object]) -> dict[str, int]:
    """Return the weights of `AGENTEXEC["QUEUE_WEIGHTS"]`. Raises `InvalidOption`."""
    for name, weight in given.items():
        validate_queue(name)
        if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= MAX_WEIGHT:
            raise InvalidOption(f"The weight {weight!r} of queue {name!r} must be a number from 1 to {MAX_WEIGHT:,}.")
    return dict(given)  # type: ignore[arg-type]  # checked above


def _weight(name: str, text: str) -> int:
    weight = parse_digits(text)
    if weight is None or not 1 <= weight <= MAX_WEIGHT:
        raise InvalidOption(f"The weight {text!r} of queue {name!r} must be a number from 1 to {MAX_WEIGHT:,}.")
    return weight
