"""The draws: the same seed gives the same faults, every kind occurs, and the environment selects the form."""

from __future__ import annotations

from itertools import islice

from tests.chaos.__main__ import LONG, SHORT, form_of
from tests.chaos.faults import ON_POSTGRESQL_ONLY, WEIGHTS, Fault, Form, draw

LEASE = 3.0


def drawn(seed: int, form: Form, number: int = 500) -> list[Fault]:
    return list(islice(draw(seed, form, LEASE), number))


def test_the_same_seed_draws_the_same_faults() -> None:
    assert drawn(7, LONG) == drawn(7, LONG)


def test_another_seed_draws_others() -> None:
    assert drawn(7, LONG) != drawn(8, LONG)


def test_every_kind_of_fault_comes_before_any_comes_again() -> None:
    kinds = [fault.kind for fault in drawn(1, LONG)]

    assert set(kinds[: len(WEIGHTS)]) == set(kinds) == set(WEIGHTS)


def test_every_kind_of_network_fault_comes_at_every_place() -> None:
    choices = {fault.choice for fault in drawn(1, LONG, 2_000) if fault.kind == "network"}

    assert len(choices) == 5 * 3


def test_sqlite_has_no_server_to_restart_and_no_network() -> None:
    faults = drawn(1, SHORT)

    assert not {fault.kind for fault in faults} & set(ON_POSTGRESQL_ONLY)
    assert {fault.choice.partition(":")[2] for fault in faults if fault.kind == "network"} == {"valkey"}


def test_workers_are_frozen_for_less_and_for_more_than_a_lease() -> None:
    seconds = [fault.seconds for fault in drawn(1, LONG) if fault.kind == "freeze_worker"]

    assert min(seconds) < LEASE
    assert 3 * LEASE < max(seconds) <= 4 * LEASE


def test_cuts_of_the_long_form_last_up_to_a_minute() -> None:
    longest = max(fault.seconds for fault in drawn(1, LONG, 2_000) if fault.kind == "network")

    assert 50 < longest < 61


def test_clocks_are_right_or_an_hour_wrong() -> None:
    assert {fault.clock for fault in drawn(1, LONG) if fault.kind == "deploy"} == {0.0, 3600.0, -3600.0}


def test_the_environment_chooses_the_form_and_changes_it() -> None:
    form = form_of({"CHAOS_FORM": "short", "CHAOS_DATABASE": "postgresql", "CHAOS_ACTIVITIES": "9", "CHAOS_RATE": "2"})

    assert (form.name, form.database, form.activities, form.rate) == ("short", "postgresql", 9, 2.0)


def test_the_long_form_is_what_it_is_said_to_be() -> None:
    form = form_of({})

    assert (form.activities, form.worker_kills, form.valkey_kills) == (50_000, 100, 10)
    assert (form.database, form.longest_cut) == ("postgresql", 60.0)
