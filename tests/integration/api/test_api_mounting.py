"""The REST API below captured URL parameters and namespaces of a project, and without users."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings
from django.urls import get_resolver, include, path, re_path

from django_agentexec import activity
from django_agentexec.api import urls as api_urls
from django_agentexec.models import AgentCall, CallKind, Conversation
from django_agentexec.policy import StaffPolicy, nobody
from tests.support.approval_rows import waiting
from tests.support.rest_api import admin, client
from tests.testapp.agents import Text, shout

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("read_title")]

API = "django_agentexec.api.urls"
ROUTES = [pattern.name for pattern in api_urls.urlpatterns]


class Versioned:
    urlpatterns = [path("api/<str:version>/agents/", include(API))]


class PerTenant:
    urlpatterns = [path("<slug:tenant>/agents/", include(API))]


class LikeOwnNames:
    """Parameters of the project with the names of parameters of the API."""

    urlpatterns = [path("<slug:name>/<slug:agent_id>/agents/", include(API))]


class Unnamed:
    urlpatterns = [re_path(r"^(\w+)/agents/", include(API))]


class Odd:
    """A prefix that needs quoting, and a prefix that may begin with a slash."""

    urlpatterns = [path("<path:rest>/ä b/agents/", include(API))]


MOUNTS = [
    (Versioned, "/api/v1/agents/"),
    (PerTenant, "/acme/agents/"),
    (LikeOwnNames, "/acme/7/agents/"),
    (Unnamed, "/acme/agents/"),
    (Odd, "/x/y/%C3%A4%20b/agents/"),
]


@pytest.mark.parametrize(("urls", "base"), MOUNTS)
@pytest.mark.parametrize("name", ROUTES)
def test_every_route_answers(urls: type, base: str, name: str) -> None:
    run = shout.enqueue(Text()).agent_id
    kwargs = {"agent_id": run} if name.startswith("activity-") and "{" not in name else {}
    kwargs = {} if name in ("activity-list", "activity-active-count") else kwargs
    if name == "activity-call":
        kwargs["call_id"] = AgentCall.objects.create(activity_id=run, kind=CallKind.MODEL).id
    kwargs = {"name": "read_title"} if name == "task-enqueue" else kwargs
    if name.startswith("approval-") and name != "approval-list":
        is_question = name == "approval-answer"
        (approval,) = waiting({"kind": "question"} if is_question else {})
        kwargs = {"approval_id": approval.id}
    if name == "conversation-items":
        kwargs = {"conversation_id": Conversation.objects.create(session_id="s").id}
    route = base + get_resolver(API).reverse(name, **kwargs)
    who = client(admin())

    with override_settings(ROOT_URLCONF=urls):
        if name in ("task-enqueue", "activity-cancel"):
            answer = who.post(route, {"title": "x"}, format="json")
        elif name in ("approval-approve", "approval-reject"):
            answer = who.post(route)
        elif name == "activity-fork":
            call = AgentCall.objects.create(activity_id=run, kind=CallKind.MODEL)
            answer = who.post(route, {"before": call.id}, format="json")
        elif name == "pause-resume":
            answer = who.post(route, {"scope": "queue", "name": "default"}, format="json")
        elif name == "approval-answer":
            answer = who.post(route, {"answer": "x"}, format="json")
        elif name == "activity-retry":
            activity.cancel(run)
            answer = who.post(route)
        else:
            answer = who.get(route)

    # 409: no result yet; 501: events need ASGI; 503: no worker is there.
    assert answer.status_code in {"activity-result": {409}, "activity-events": {501}, "health": {503}}.get(
        name, {200, 202}
    )


@pytest.mark.parametrize(("urls", "base"), MOUNTS)
def test_addresses_in_answers_stay_below_the_same_prefix(urls: type, base: str) -> None:
    who = client(admin())
    with override_settings(ROOT_URLCONF=urls):
        (listed,) = [one for one in who.get(f"{base}tasks/").json() if one["name"] == "read_title"]
        answer = who.post(listed["enqueue_url"], {"title": "x"}, format="json")

        assert listed["enqueue_url"] == f"{base}tasks/read_title/"
        assert answer["Location"] == answer.json()["status_url"] == f"{base}activities/{answer.json()['agent_id']}/"
        assert who.get(answer["Location"]).status_code == 200


def test_a_prefix_cannot_lead_to_another_host() -> None:
    with override_settings(ROOT_URLCONF=Odd):
        answer = client(admin()).post("/%2Fevil.example/ä b/agents/tasks/read_title/", {"title": "x"}, format="json")

    assert answer.status_code == 202
    assert not answer["Location"].startswith("//")


class Nested:
    urlpatterns = [path("v1/", include(([path("runs/", include(API))], "inner"), namespace="outer"))]


class OtherApp:
    urlpatterns = [path("runs/", include((api_urls.urlpatterns, "ours")))]


class Bare:
    urlpatterns = [path("runs/", include(api_urls.urlpatterns))]


@pytest.mark.parametrize(("urls", "base"), [(Nested, "/v1/runs/"), (OtherApp, "/runs/"), (Bare, "/runs/")])
def test_the_status_url_follows_the_namespace(urls: type, base: str) -> None:
    with override_settings(ROOT_URLCONF=urls):
        run = shout.enqueue(Text())

        assert run.status_url == f"{base}activities/{run.agent_id}/"
        assert client(admin()).get(run.status_url).status_code == 200


def own_page(request: Any, agent_id: str) -> None:
    raise NotImplementedError


class OwnPage:
    urlpatterns = [path("agents/", include(API)), path("run/<uuid:agent_id>/", own_page, name="run")]


@override_settings(ROOT_URLCONF=OwnPage)
def test_the_status_url_leads_to_the_view_of_the_settings() -> None:
    run = shout.enqueue(Text())

    with override_settings(AGENTEXEC={"STATUS_VIEW": "run"}):
        assert run.status_url == f"/run/{run.agent_id}/"
    with override_settings(AGENTEXEC={"STATUS_VIEW": "no_such_view", "STATUS_URL": "/x/{agent_id}"}):
        assert run.status_url == f"/x/{run.agent_id}"


WITHOUT_USERS = {"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []}


@pytest.mark.parametrize("policy", ["django_agentexec.policy.StaffPolicy", "tests.support.rest_api.OrganizationPolicy"])
@pytest.mark.parametrize("name", ROUTES)
def test_without_a_user_every_route_refuses_and_none_fails(policy: str, name: str) -> None:
    from rest_framework.test import APIRequestFactory

    run = activity.create("import")
    view = next(pattern for pattern in api_urls.urlpatterns if pattern.name == name).callback
    kwargs = {"agent_id": str(run), "name": "read_title"}
    factory = APIRequestFactory()
    make = factory.post if name in ("task-enqueue", "activity-cancel", "activity-retry") else factory.get

    with override_settings(AGENTEXEC={"POLICY": policy}, REST_FRAMEWORK=WITHOUT_USERS):
        cls = type(view.cls.__name__, (view.cls,), {"authentication_classes": []})
        answer = cls.as_view()(make("/"), **kwargs)

    assert answer.status_code == (503 if name == "health" else 403)


def test_requests_without_a_user_are_refused_also_without_djangos_users(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app == "django.contrib.contenttypes"]
    who = nobody()

    assert not who.is_authenticated
    assert not StaffPolicy().may_monitor(who)
    assert StaffPolicy().audience(who) == ""
