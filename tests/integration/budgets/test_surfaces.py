"""Budgets in the admin, over REST, in the terminal and for Prometheus; staff of a tenant see those of their tenant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import reverse
from prometheus_client.parser import text_string_to_metric_families

from django_agentexec import task
from django_agentexec.activity.suspension import Condition
from django_agentexec.budgets.applicable import key_of
from django_agentexec.budgets.queries import consumption
from django_agentexec.models import Activity, Budget, BudgetLedger, BudgetWait, WaitingFor
from django_agentexec.tasks import registry
from tests.support.activity_rows import start, suspend
from tests.support.admin_pages import TENANTS, signed_in
from tests.support.budget_rows import budget
from tests.support.management_commands import call as command
from tests.support.priced_calls import run_of
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/agentexec/budget/"
LEDGERS = "/admin/agentexec/budgetledger/"
PERMISSIONS = ("view_activity", "view_budget", "add_budget", "change_budget", "delete_budget", "view_budgetledger")


def with_spent(found: Budget, spent: str, reserved: str = "0") -> BudgetLedger:
    """Store what was spent in the current period."""
    (shown,) = consumption([found])
    assert shown.current is not None
    return BudgetLedger.objects.create(
        id=key_of(found, shown.current),
        budget=found,
        label=found.name,
        period=shown.current,
        ends_at=shown.ends_at,
        unit=found.unit,
        spent=Decimal(spent),
        reserved=Decimal(reserved),
    )


def tenants_budget(tenant: str) -> Budget:
    return budget("10", name=f"Of {tenant}", scope="metadata", metadata_key="organization_id", metadata_value=tenant)


def waits_for(ledger: BudgetLedger) -> BudgetWait:
    """Let an activity wait for a dollar."""
    agent_id = shout.enqueue(Text()).agent_id
    fence = start(agent_id).fence
    wait = BudgetWait(ledger=ledger, agent_id=agent_id, amount=Decimal(1))
    condition = Condition(WaitingFor.BUDGET, record=wait)
    suspend(agent_id, fence, condition=condition)
    return wait


def of_tenant(user: User) -> User:
    user.first_name = "1"
    user.save()
    return user


# REST


def test_the_list_over_rest() -> None:
    found = budget("10", name="Acme", scope="task", task="research", period="day", action="fail")
    waits_for(with_spent(found, "2.5", "0.5"))

    (shown,) = client(admin()).get("/agents/budgets/").json()["items"]

    assert shown["name"] == "Acme"
    assert (shown["scope"], shown["task"], shown["period"], shown["action"]) == ("task", "research", "day", "fail")
    assert (shown["limit"], shown["spent"], shown["reserved"], shown["percentage"]) == ("10", "2.5", "0.5", 25)
    assert (shown["unit"], shown["waiting"]) == ("money", 1)


def test_a_limit_per_run_has_no_total() -> None:
    budget("10", period="run")

    (shown,) = client(admin()).get("/agents/budgets/").json()["items"]

    assert (shown["current"], shown["spent"], shown["percentage"]) == (None, None, None)


@pytest.mark.parametrize(
    ("who", "names"),
    [
        ("root", ["Everything", "Of 1", "Of 2"]),
        ("tenant", ["Of 1"]),
        ("staff of the tenant", ["Of 1"]),
        ("without a tenant", None),
        ("anonymous", None),
    ],
)
def test_each_user_sees_the_budgets_of_the_own_tenant(who: str, names: list[str] | None) -> None:
    budget("10", name="Everything")
    tenants_budget("1")
    tenants_budget("2")
    users: dict[str, Any] = {
        "root": admin,
        "tenant": lambda: member("1"),
        "staff of the tenant": lambda: of_tenant(staff("boss", "view_activity")),
        "without a tenant": lambda: member("", "nobody"),
        "anonymous": lambda: None,
    }

    with override_settings(AGENTEXEC={"POLICY": POLICY, "STAFF_SEES_ALL_TENANTS": False}):
        answer = client(users[who]()).get("/agents/budgets/")

    if names is None:
        assert answer.status_code in (401, 403) or answer.json()["items"] == []
    else:
        assert [each["name"] for each in answer.json()["items"]] == names


@pytest.fixture
def declared() -> Iterator[None]:
    """A task with a budget in its code."""
    task("dear", budget="0.1")(of_text)
    yield
    registry.unregister("dear")


def of_text(agent_id: UUID, context: Text) -> None:
    """Do nothing."""


@pytest.mark.usefixtures("declared")
def test_budgets_in_code_follow_those_of_rows() -> None:
    budget("10", name="Zulu")
    waits_for(BudgetLedger.objects.create(id=uuid4(), label="dear", period="x", own_limit=1, unit="money"))

    items = client(admin()).get("/agents/budgets/").json()["items"]

    assert [each["name"] for each in items] == ["Zulu", "dear"]
    shown = items[1]
    assert (shown["id"], shown["scope"], shown["task"], shown["period"]) == (None, "task", "dear", "run")
    assert (shown["limit"], shown["unit"], shown["action"], shown["spent"]) == ("0.1", "money", "suspend", None)
    assert shown["waiting"] == 1
    answer = command("agentexec", "budgets")
    line = next(line for line in answer.out.splitlines() if " dear " in line)
    assert line.split()[0] == "-"
    assert "$0.10" in line
    assert "declared in code" in answer.err


@pytest.mark.usefixtures("declared")
def test_budgets_in_code_need_the_monitor_permission() -> None:
    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        assert client(member("1")).get("/agents/budgets/").json()["items"] == []


# The admin


def test_the_list_shows_consumption() -> None:
    found = budget("10", name="Acme")
    waits_for(with_spent(found, "9"))

    page = signed_in(name="root", is_superuser=True).get(LIST).content.decode()

    assert 'value="90"' in page
    assert "90 % ($9.00)" in page
    assert "$10.00" in page


def test_a_higher_limit_resumes_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = budget("10", name="Acme")
    ledger = with_spent(found, "10")
    resumed: list[Any] = []
    monkeypatch.setattr("django_agentexec.budgets.commands.resume_waiting", resumed.append)
    waits_for(ledger)
    BudgetLedger.objects.update(notified=100)
    values = {"name": "Acme", "is_active": "on", "limit": "15", "action": "suspend", "unit": "tokens", "period": "day"}

    answer = signed_in(name="root", is_superuser=True).post(f"{LIST}{found.pk}/change/", values)

    assert answer.status_code == 302, answer.content
    found.refresh_from_db()
    ledger.refresh_from_db()
    assert (found.unit, found.period) == ("money", "month")  # they identify the consumption, and stay
    assert (found.limit, ledger.notified) == (15, 50)  # 80 and 100 % are announced again
    assert resumed == [[ledger.pk]]


def test_the_limit_of_one_period_is_changed_without_touching_what_is_spent() -> None:
    found = budget("10")
    ledger = with_spent(found, "10")
    browser = signed_in(name="root", is_superuser=True)
    browser.get(f"{LEDGERS}{ledger.pk}/change/")
    BudgetLedger.objects.update(spent=Decimal(11))  # a worker, between the two requests

    answer = browser.post(f"{LEDGERS}{ledger.pk}/change/", {"own_limit": "20"})

    assert answer.status_code == 302, answer.content
    ledger.refresh_from_db()
    assert (ledger.own_limit, ledger.spent) == (20, 11)
    assert consumption([found])[0].limit == 20
    found.refresh_from_db()
    assert found.limit == 10


def test_staff_of_a_tenant_see_its_budgets_and_change_none() -> None:
    own, foreign = tenants_budget("org-1"), tenants_budget("org-2")
    everything = budget("10", name="Of all")
    own_ledger, foreign_ledger = with_spent(own, "1"), with_spent(foreign, "1")
    activity = run_of(organization_id="org-1")
    of_run = BudgetLedger.objects.create(
        id=uuid4(), activity=activity, label="own run", period="x", own_limit=1, unit="money", action="fail"
    )

    with override_settings(AGENTEXEC=TENANTS):
        browser = signed_in(*PERMISSIONS, first_name="org-1")
        page = browser.get(LIST).content.decode()
        ledgers = browser.get(LEDGERS).content.decode()
        assert "Of org-1" in page
        assert "org-2" not in page
        assert "Of all" not in page
        assert "Of org-1" in ledgers
        assert "own run" in ledgers
        assert "org-2" not in ledgers
        assert browser.get(f"{LIST}{own.pk}/change/").status_code == 200
        for hidden in (f"{LIST}{foreign.pk}/change/", f"{LIST}{everything.pk}/change/"):
            assert browser.get(hidden).status_code == 302  # to the index, as for a row that does not exist
        assert browser.get(f"{LEDGERS}{foreign_ledger.pk}/change/").status_code == 302
        assert browser.post(f"{LIST}{own.pk}/change/", {"limit": "999"}).status_code == 403
        assert browser.post(f"{LEDGERS}{own_ledger.pk}/change/", {"own_limit": "999"}).status_code == 403
        assert browser.post(f"{LEDGERS}{of_run.pk}/change/", {"own_limit": "999"}).status_code == 403
        assert browser.get(f"{LIST}add/").status_code == 403
        assert browser.post(f"{LIST}{own.pk}/delete/", {"post": "yes"}).status_code == 403

    assert set(Budget.objects.values_list("limit", flat=True)) == {Decimal(10)}


def test_without_permission_nothing_is_seen() -> None:
    budget()

    assert signed_in("view_activity").get(LIST).status_code == 403


def test_an_unknown_scope_is_refused_by_the_form() -> None:
    values = {"name": "Acme", "scope": "moon", "limit": "15", "unit": "money", "period": "month", "action": "fail"}

    page = signed_in(name="root", is_superuser=True).post(reverse("admin:agentexec_budget_add"), values)

    assert page.status_code == 200
    assert not Budget.objects.exists()


def test_the_form_names_what_is_missing() -> None:
    values = {"name": "Acme", "scope": "task", "limit": "15", "unit": "money", "period": "month", "action": "fail"}

    page = signed_in(name="root", is_superuser=True).post(reverse("admin:agentexec_budget_add"), values)

    assert "This scope needs a value here." in page.content.decode()
    assert not Budget.objects.exists()


# The terminal and Prometheus


def test_the_terminal_lists_budgets_and_sets_a_limit() -> None:
    assert "There are no budgets" in command("agentexec", "budgets").err
    found = budget("10", name="Acme", scope="metadata", metadata_key="tenant", metadata_value="acme")
    with_spent(found, "2.5")

    line = command("agentexec", "budgets").out.splitlines()[-1]
    assert all(text in line for text in ("Acme", "tenant=acme", "$10", "$2.5", "25"))
    (shown,) = json.loads(command("agentexec", "budgets", "--json").out)
    assert shown["spent"] == "2.5"

    assert "The limit of Acme is $12.50." in command("agentexec", "budgets", "--set-limit", str(found.pk), "12.5").out
    found.refresh_from_db()
    assert found.limit == Decimal("12.5")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["999", "5"], 3, "There is no budget 999"),
        (["x", "5"], 3, "There is no budget x"),
        (["ID", "much"], 2, "'much' is not a number"),
        (["ID", "-1"], 2, "-1"),
    ],
)
def test_the_terminal_refuses_what_cannot_be(arguments: list[str], code: int, text: str) -> None:
    found = budget("10")

    answer = command("agentexec", "budgets", "--set-limit", *(str(found.pk) if a == "ID" else a for a in arguments))

    assert answer.code == code
    assert text in answer.err


def test_prometheus_reads_limits_and_consumption() -> None:
    found = budget("10", name="Acme")
    waits_for(with_spent(found, "2.5"))

    text = client(admin()).get("/agents/metrics").content.decode()
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("agentexec_budget")
    }

    labels = {"budget": f"{found.pk}: Acme", "unit": "money"}
    assert samples == {
        "agentexec_budget_limit": (labels, 10.0),
        "agentexec_budget_spent": (labels, 2.5),
        "agentexec_budget_waiting": (labels, 1.0),
    }


def test_ledgers_of_runs_are_deleted_with_their_activity() -> None:
    activity = run_of()
    BudgetLedger.objects.create(id=uuid4(), activity=activity, label="run", period="x", own_limit=1, unit="money")

    Activity.objects.all().delete()

    assert not BudgetLedger.objects.exists()
