"""Children: spawned once, and found again by a handler that runs again."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_agentexec import InvalidOption, SpawnMismatch, StaleAttempt
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from tests.support.activity_rows import WRITES_OF_A_BATCH, claimed_ids, row, start
from tests.support.research_family import Companies, Company, attempt_of, defined, running_parent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


def test_a_handler_that_runs_again_finds_its_children() -> None:
    first = running_parent()
    children = first.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])

    again = attempt_of(first.agent_id)
    found = [again.spawn("research", Company(name=name)) for name in ("Acme", "Globex")]

    assert [handle.agent_id for handle in found] == [handle.agent_id for handle in children]
    assert [handle.created for handle in (*children, *found)] == [True, True, False, False]


def test_a_child_is_found_by_its_key_in_any_order() -> None:
    first = running_parent()
    acme = first.spawn("research", Company(name="Acme"), key="acme")
    globex = first.spawn("research", Company(name="Globex"), key="globex")

    again = attempt_of(first.agent_id)

    assert again.spawn("research", Company(name="Globex, later"), key="globex").agent_id == globex.agent_id
    assert again.spawn("research", Company(name="Acme"), key="acme").agent_id == acme.agent_id


def test_a_handler_that_spawns_others_than_before_is_told_so() -> None:
    first = running_parent()
    first.spawn("research", Company(name="Acme"))

    with pytest.raises(SpawnMismatch, match=r"was spawned with the context .*'Acme'"):
        attempt_of(first.agent_id).spawn("research", Company(name="Globex"))


def test_a_context_type_that_got_a_field_since_is_the_same_context() -> None:
    first = running_parent()
    child = first.spawn("discover", Companies())
    Activity.objects.filter(pk=child.agent_id).update(context={"names": ["Acme", "Globex"]})  # before `tolerant`

    assert attempt_of(first.agent_id).spawn("discover", Companies()).agent_id == child.agent_id


def test_children_have_their_parents_metadata_unless_said() -> None:
    agent_id = defined("discover").enqueue(Companies(), metadata={"org": 1}).agent_id
    start(agent_id)
    attempt = attempt_of(agent_id)

    inherited = attempt.spawn("research", Company(name="Acme"))
    own = attempt.spawn("research", Company(name="Globex"), metadata={"org": 2})

    assert [row(child.agent_id).metadata for child in (inherited, own)] == [{"org": 1}, {"org": 2}]


def test_a_key_belongs_to_one_task() -> None:
    first = running_parent()
    first.spawn("research", Company(name="Acme"), key="a")

    with pytest.raises(SpawnMismatch, match="is a 'research', but now a 'discover'"):
        attempt_of(first.agent_id).spawn("discover", Companies(), key="a")


@pytest.mark.parametrize("keys", [["a", "a"], ["", "b"], ["x" * 300, "b"]])
def test_impossible_keys_spawn_nothing(keys: list[str]) -> None:
    attempt = running_parent()

    with pytest.raises(InvalidOption):
        attempt.spawn_many("research", [Company(name="a"), Company(name="b")], keys=keys)

    assert not row(attempt.agent_id).children.exists()


def test_an_attempt_that_lost_its_activity_spawns_nothing() -> None:
    stale = running_parent()
    start(stale.agent_id, fence=2)

    with pytest.raises(StaleAttempt):
        stale.spawn("research", Company(name="Acme"))

    assert not row(stale.agent_id).children.exists()


def test_a_hundred_children_take_as_many_queries_as_one(django_assert_num_queries: Any) -> None:
    attempt = running_parent()
    savepoint = 2

    # The parent's lock, the search, the inserts in a savepoint, and the parent's flag.
    with transaction.atomic(), django_assert_num_queries(2 * savepoint + 3 + WRITES_OF_A_BATCH):
        attempt.spawn_many("research", [Company(name=str(n)) for n in range(100)])


def test_a_child_that_a_crash_kept_from_its_queue_is_pushed_when_it_is_found() -> None:
    first = running_parent()
    child = first.spawn("research", Company(name="Acme"))
    get_queue().cancel("default", [child.agent_id])

    attempt_of(first.agent_id).spawn("research", Company(name="Acme"))

    assert child.agent_id in claimed_ids()
