"""A project's own admin of activities: what it adds to the list works as in any `ModelAdmin`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path

from django_agentexec import activity
from django_agentexec.admin import ActivityAdmin
from django_agentexec.models import Activity
from tests.support.admin_pages import ALL, CHANGE_LIST, said, signed_in, staff

pytestmark = pytest.mark.django_db(transaction=True)


class ParentFilter(admin.SimpleListFilter):
    title = "parent"
    parameter_name = "has_parent"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(parent__isnull=self.value() == "no") if self.value() else queryset


class OwnAdmin(ActivityAdmin):
    list_display = ("task", "state", "worker", "error", "context", "length")
    list_filter = (*ActivityAdmin.list_filter, "worker", ("started_at", admin.DateFieldListFilter), ParentFilter)
    search_fields = (*ActivityAdmin.search_fields, "latest_log_message")
    sortable_by = ("task", "worker")

    @admin.display(description="length")
    def length(self, run: Activity) -> int:
        return len(run.latest_log_message)


class OnlyMessages(ActivityAdmin):
    search_fields = ("latest_log_message",)
    ordering = ("agent_id",)


site = admin.AdminSite("own")
site.register(Activity, OwnAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("own/", site.urls)]
OWN_LIST = "/own/agentexec/activity/"


def listed(**parameters: str) -> list[UUID]:
    response: Any = signed_in(*ALL, name=f"user{Activity.objects.count()}{parameters}"[:100]).get(OWN_LIST, parameters)
    assert response.status_code == 200, response
    return [row.agent_id for row in response.context["cl"].result_list]


@pytest.mark.urls(__name__)
def test_filters_of_a_subclass_work() -> None:
    parent = activity.create("import")
    child = activity.create("import")
    Activity.objects.filter(agent_id=child).update(parent_id=parent, worker="host-1")

    assert listed(worker="host-1") == [child]
    assert listed(worker__exact="host-1") == [child]
    assert listed(has_parent="no") == [parent]
    assert listed(started_at__isnull="True") == [child, parent]
    assert listed(status="queued", has_parent="yes") == [child]


@pytest.mark.urls(__name__)
def test_filters_that_depend_on_the_request_work(monkeypatch: pytest.MonkeyPatch) -> None:
    run = activity.create("import")
    Activity.objects.filter(agent_id=run).update(lock_key="a")
    monkeypatch.setattr(OwnAdmin, "get_list_filter", lambda self, request: ["lock_key"])

    assert listed(lock_key="a") == [run]
    assert signed_in(*ALL).get(OWN_LIST, {"worker": "x"}).status_code == 400


@pytest.mark.urls(__name__)
def test_search_fields_of_a_subclass_are_searched_beside_its_own_search() -> None:
    run, other = activity.create("import", "Reading chapter 3"), activity.create("import", metadata={"org": "acme"})

    assert listed(q="chapter") == [run]
    assert listed(q="org=acme") == [other]
    assert listed(q=str(run)) == [run]


def test_search_fields_without_the_id_take_the_place_of_the_search() -> None:
    run = activity.create("import", "Reading chapter 3")
    request = RequestFactory().get("/", {})
    request.user = staff(*ALL)
    own = OnlyMessages(Activity, admin.site)

    assert list(own.get_search_results(request, Activity.objects.all(), "chapter")[0]) == [run_of(run)]
    assert list(own.get_search_results(request, Activity.objects.all(), "import")[0]) == []
    assert own.get_ordering(request) == ["agent_id"]


def run_of(agent_id: UUID) -> Activity:
    return Activity.objects.get(agent_id=agent_id)


@pytest.mark.urls(__name__)
def test_columns_of_a_subclass_are_shown_and_sorted() -> None:
    run = activity.create("import", "x" * 37)
    Activity.objects.filter(agent_id=run).update(worker="host-1", error="RuntimeError: no")

    page: HttpResponse = signed_in(*ALL).get(OWN_LIST, {"o": "3"})

    assert page.status_code == 200
    assert all(text in page.content.decode() for text in ("host-1", "RuntimeError: no", ">37<"))


@pytest.mark.parametrize("query", ["status__exact=", "status__exact=queued", "status__exact=queued&life=active"])
def test_addresses_in_the_form_of_djangos_filters_are_understood(query: str) -> None:
    run = activity.create("import")

    answer: Any = signed_in(*ALL).get(f"{CHANGE_LIST}?{query}", follow=True)

    assert [row.agent_id for row in answer.context["cl"].result_list] == [run]
    assert "__exact" not in answer.request["QUERY_STRING"]


def test_a_filter_that_the_list_does_not_have_is_ignored_with_a_message() -> None:
    run = activity.create("import")

    answer: Any = signed_in(*ALL).get(f"{CHANGE_LIST}?worker__exact=x&%00__exact=y", follow=True)

    assert [row.agent_id for row in answer.context["cl"].result_list] == [run]
    assert "The list has no filter 'worker'; it was ignored." in said(answer)
