"""The list over REST: content, filters, order and number of queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from tests.support.activity_rows import start
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db

URL = "/agents/activities/"


def run_of(agent_type: str = "import", message: str | None = None, **metadata: Any) -> str:
    return str(activity.create(agent_type, message, metadata=metadata))


def listed(**parameters: Any) -> list[str]:
    """Return the ids that the list shows to an admin."""
    answer = client(admin()).get(URL, {name.replace("__", "."): value for name, value in parameters.items()})
    assert answer.status_code == 200, answer.json()
    return [item["agent_id"] for item in answer.json()["items"]]


def test_a_page_has_the_documented_shape() -> None:
    run = run_of(message="Reading")

    page = client(admin()).get(URL).json()

    assert {key: page[key] for key in page if key != "items"} == {
        "total": 1,
        "total_is_bounded": False,
        "page": 1,
        "page_size": 50,
        "total_pages": 1,
    }
    (item,) = page["items"]
    wanted = {"agent_id": run, "agent_type": "import", "status": "queued", "latest_log_message": "Reading"}
    assert {key: item[key] for key in wanted} == wanted
    assert item["percentage"] == 0
    assert item["started_at"] is None
    assert item["latest_log_timestamp"].endswith("Z")


def test_active_activities_come_first_then_the_newest() -> None:
    finished, old, new = run_of(), run_of(), run_of()
    activity.cancel(UUID(finished))

    assert listed() == [new, old, finished]


def test_a_page_is_a_part_of_the_list() -> None:
    runs = [run_of() for _ in range(5)]

    assert listed(page=2, page_size=2) == [runs[2], runs[1]]
    assert listed(page=4, page_size=2) == []


@override_settings(AGENTEXEC={"COUNT_LIMIT": 4})
def test_counting_ends_at_the_limit_and_pages_with_it() -> None:
    for _ in range(6):
        run_of()
    who = client(admin())

    page = who.get(URL, {"page_size": 2, "page": 2}).json()
    beyond = who.get(URL, {"page_size": 2, "page": 3})

    assert (page["total"], page["total_is_bounded"], page["total_pages"]) == (4, True, 2)
    assert beyond.status_code == 404
    assert "Page 3" in beyond.json()["detail"]
    assert who.get(f"{URL}active/count/").json() == {"count": 4}


def test_status_can_be_given_several_times() -> None:
    queued, canceled, failed = run_of(), run_of(), run_of()
    activity.cancel(UUID(canceled))
    activity.error(UUID(failed), "no")

    assert listed(status=["canceled", "error"]) == [failed, canceled]
    assert listed(status="queued") == [queued]
    assert listed(status=["error", "queued"]) == [queued, failed]


def test_filters_by_task_queue_and_parent() -> None:
    parent, handle = run_of("parent"), shout.enqueue(Text(), queue="slow")
    child = run_of("child")
    Activity.objects.filter(agent_id=child).update(parent_id=parent)

    assert listed(agent_type="parent") == [parent]
    assert listed(queue="slow") == [str(handle.agent_id)]
    assert listed(parent=parent) == [child]


def test_filters_by_time() -> None:
    run, now = run_of(), timezone.now()
    activity.complete(UUID(run))
    before, after = now - timedelta(hours=1), now + timedelta(hours=1)
    Activity.objects.filter(agent_id=run).update(started_at=now)

    for what in ("created", "started", "finished"):
        assert listed(**{f"{what}_after": before.isoformat()}) == [run]
        assert listed(**{f"{what}_after": after.isoformat()}) == []
        assert listed(**{f"{what}_before": before.isoformat()}) == []
        assert listed(**{f"{what}_before": after.isoformat()}) == [run]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_moment_that_no_database_holds_is_still_a_moment(moment: str) -> None:
    run = run_of()

    assert listed(created_after=moment, created_before="9999-12-31T23:59:59-12:00") == (
        [run] if moment.startswith("0001") else []
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("org-1", ["org-1"]),
        ("7", ["7", 7]),
        ("1.5", ["1.5", 1.5]),
        ("true", ["true", True]),
        ("", [""]),
        ("null", ["null", None]),
        ("1" * 5_000, ["1" * 5_000]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_metadata_is_found_by_each_reading_of_the_text(text: str, values: list[Any]) -> None:
    runs = [run_of(key=value) for value in values]
    for other in ("other", 8, False, []):
        run_of(key=other)

    assert sorted(listed(metadata__key=text)) == sorted(runs)


def test_metadata_filters_join_and_a_repeated_key_offers_a_choice() -> None:
    first, second = run_of(org="a", team=1), run_of(org="b", team=1)
    run_of(org="a", team=2)

    assert listed(metadata__org="a", metadata__team="1") == [first]
    assert listed(metadata__org=["a", "b"], metadata__team="1") == [second, first]


@pytest.mark.parametrize("value", ["1e999", "9" * 30, "%", "'\"", "\\"])
def test_no_metadata_value_is_an_error(value: str) -> None:
    run_of(key="other")

    assert listed(metadata__key=value) == []


def test_search_finds_ids_tasks_and_messages() -> None:
    one, other = run_of("Research_Company", "Reading page 3"), run_of("other", "50% done_")

    assert listed(search=one[:23]) == listed(search=one) == listed(search=one.replace("-", "")) == [one]
    assert listed(search="search_comp") == [one]
    assert listed(search="PAGE 3") == [one]
    assert listed(search="50%") == [other]
    assert listed(search="e_") == [other]  # no wildcards
    assert listed(search=str(uuid4())) == []


@override_settings(AGENTEXEC={"COUNT_LIMIT": 2})
def test_text_is_searched_in_the_first_activities_only() -> None:
    run_of("needle")
    needles = [run_of("needle") for _ in range(2)]

    assert listed(search="needle") == needles[::-1]


def test_other_orders() -> None:
    finished, active = run_of(), run_of()
    activity.cancel(UUID(finished))
    third = run_of()

    assert listed(ordering="created") == [finished, active, third]


def test_the_newest_first_whatever_their_state() -> None:
    active, finished = run_of(), run_of()
    activity.cancel(UUID(finished))

    assert listed(ordering="-created") == [finished, active]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statuss", "queued"),
        ("status", "finished"),
        ("status", ""),
        ("page", "0"),
        ("page", "x"),
        ("page_size", "201"),
        ("page_size", ""),
        ("ordering", "context"),
        ("parent", "nobody"),
        ("created_after", "yesterday"),
        ("search", "x" * 101),
        ("agent_type", "\x00"),
    ],
)
def test_an_unknown_parameter_or_impossible_value_is_named(name: str, value: str) -> None:
    answer = client(admin()).get(URL, {name: value})

    assert answer.status_code == 400
    (message,) = answer.json()[name]
    assert (value or "empty") in message or repr(value[:80])[1:-1] in message or name in message


def test_a_parameter_given_twice_is_refused() -> None:
    for name in ("page", "queue"):
        answer = client(staff(name, "view_activity")).get(f"{URL}?{name}=1&{name}=2")

        assert answer.status_code == 400
        assert answer.json() == {name: ["Give one value, not 2."]}


def test_metadata_is_sent_only_if_the_settings_say_so() -> None:
    run_of(secret="x")
    who = client(admin())

    assert who.get(URL).json()["items"][0]["metadata"] == {}
    with override_settings(AGENTEXEC={"EXPOSE_METADATA": True}):
        assert who.get(URL).json()["items"][0]["metadata"] == {"secret": "x"}


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_a_tenant_lists_and_counts_its_own() -> None:
    ours = run_of(organization_id="org-1")
    run_of(organization_id="org-2")
    who = client(member("org-1"))

    page = who.get(URL).json()

    assert [item["agent_id"] for item in page["items"]] == [ours]
    assert page["total"] == 1
    assert who.get(URL, {"metadata.organization_id": "org-2"}).json()["items"] == []
    assert who.get(URL, {"search": "import"}).json()["total"] == 1
    assert who.get(f"{URL}active/count/").json() == {"count": 1}


def test_only_active_activities_are_counted() -> None:
    waiting, running, finished = run_of(), run_of(), run_of()
    start(UUID(running))
    activity.cancel(UUID(finished))

    assert client(admin()).get(f"{URL}active/count/").json() == {"count": 2}
    assert Activity.objects.get(agent_id=waiting).status == Status.QUEUED


@pytest.mark.parametrize("parameters", [{}, {"status": "queued", "search": "import", "metadata.n": "1"}])
def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(parameters: dict[str, str]) -> None:
    who = client(admin())
    counts = []
    for rows in (1, 40):
        for _ in range(rows):
            run_of(n=1)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert who.get(URL, parameters).status_code == 200
        counts.append(len(queries))

    # Session, user, rows, count.
    assert counts == [4, 4]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's planner")
def test_the_first_page_of_many_rows_reads_an_index_only_as_far_as_it_shows() -> None:
    now = timezone.now()
    Activity.objects.bulk_create(
        Activity(agent_type="many", status=Status.COMPLETE, created_at=now, updated_at=now) for _ in range(20_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agentexec_activity")
    who = client(admin())

    with CaptureQueriesContext(connection) as queries:
        who.get(URL)
        who.get(URL, {"status": "complete"})
        with override_settings(AGENTEXEC={"COUNT_LIMIT": 100}):
            who.get(URL, {"search": "nowhere"})
    pages = [query["sql"] for query in queries if "LIMIT 50" in query["sql"]]
    plans = []
    with connection.cursor() as cursor:
        for sql in pages:
            cursor.execute(f"EXPLAIN {sql}")
            plans.append("\n".join(line for (line,) in cursor.fetchall()))

    assert "Index Scan using agentexec_active_first" in plans[0]
    assert "Index Scan Backward using" in plans[1]
    assert not any("Sort" in plan for plan in plans[:2])
    assert not any("Seq Scan" in plan for plan in plans)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "parent", ["\N{ARABIC-INDIC DIGIT ONE}" * 32, "_".join("1" * 16) + "1", "{" + "0" * 32 + "}"], ids=ascii
)
def test_a_parent_that_is_not_an_id_is_refused(parent: str) -> None:
    answer = client(admin()).get("/agents/activities/", {"parent": parent})

    assert (answer.status_code, list(answer.json())) == (400, ["parent"])
