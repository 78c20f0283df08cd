"""Who is refused where: every caller without a right, on every route of REST, admin and websocket.

The routes are read from the package. A new route fails the first test until it has a rule here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as settings_module
from django.contrib import admin
from django.contrib.auth.models import Permission as ModelPermission
from django.contrib.auth.models import User
from django.test import Client
from django.urls import NoReverseMatch, reverse
from websockets.exceptions import ConnectionClosed

from django_agentexec import activity
from django_agentexec.api import urls as api_urls
from django_agentexec.live.routing import websocket_urlpatterns
from django_agentexec.models import Activity, ActivityLog, AgentCall, Approval, CallKind, Conversation
from django_agentexec.policy import Permission
from tests.support.asgi_server import Server, serve
from tests.support.asgi_server import client as socket
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db

METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
REFUSED = {302, 401, 403, 404, 405}  # 302 leads to the admin's login
TENANTS = {"POLICY": "tests.integration.test_policy.OrganizationPolicy"}

VIEW, CANCEL, RETRY, ENQUEUE, VIEW_CONVERSATION, DECIDE, PAUSE = (str(permission) for permission in Permission)

# The permission that opens each route, "" where none is needed, and None where nothing does.
REST: dict[str, str | None] = {
    "activity-list": VIEW,
    "activity-active-count": VIEW,
    "activity-detail": VIEW,
    "activity-result": VIEW,
    "activity-events": VIEW,
    "activity-calls": VIEW,
    "activity-call": VIEW,
    "activity-cancel": CANCEL,
    "activity-retry": RETRY,
    "activity-fork": ENQUEUE,
    "activity-usage": VIEW,
    "budget-list": VIEW,
    "pause-list": PAUSE,
    "pause-resume": PAUSE,
    "usage": VIEW,
    "usage-runs": VIEW,
    "conversation-list": VIEW_CONVERSATION,
    "conversation-items": VIEW_CONVERSATION,
    "approval-list": VIEW,
    "approval-detail": VIEW,
    "approval-approve": DECIDE,
    "approval-reject": DECIDE,
    "approval-answer": DECIDE,
    "task-list": ENQUEUE,
    "task-enqueue": ENQUEUE,
    "worker-list": VIEW,
    "queue-list": VIEW,
    "health": "",
    "metrics": VIEW,
    "schema": VIEW,
}
ADMIN: dict[str, str | None] = {
    "agentexec_activity_changelist": VIEW,
    "agentexec_activity_usage": VIEW,
    "agentexec_activity_dashboard": VIEW,
    "agentexec_activity_dashboard_data": VIEW,
    "agentexec_activity_change": VIEW,
    "agentexec_activity_live": VIEW,
    "agentexec_activity_value": VIEW,
    "agentexec_activity_history": VIEW,
    "agentexec_activity_cancel": CANCEL,
    "agentexec_activity_retry": RETRY,
    "agentexec_activity_copy": ENQUEUE,
    "agentexec_activity_trace": VIEW,
    "agentexec_activity_call": VIEW,
    "agentexec_activity_fork": ENQUEUE,
    "agentexec_activity_pause": PAUSE,
    "agentexec_activity_resume": PAUSE,
    "agentexec_activity_delete": "delete_activity",
    "agentexec_activity_add": None,
}
ABOUT_A_CALL = ("activity-call", "agentexec_activity_call", "agentexec_activity_fork")
PAUSE_PAGE, TARGET = "agentexec_activity_pause", "scope=queue&name=default"
SOCKETS = ["ws/agents/activities/", "ws/agents/activities/<uuid:agent_id>/"]


def names_of(patterns: Any) -> list[str]:
    return [pattern.name for pattern in patterns]


def test_every_route_has_a_rule() -> None:
    assert set(names_of(api_urls.urlpatterns)) == set(REST)
    assert {name for name in names_of(admin.site.get_model_admin(Activity).urls) if name} == set(ADMIN)
    assert [str(pattern.pattern) for pattern in websocket_urlpatterns] == SOCKETS


@dataclass(frozen=True)
class Route:
    """A route with the permission it requires."""

    name: str
    permission: str | None

    def url(self, agent_id: UUID) -> str:
        """Return its address, about this activity if it is about one."""
        if self.name.startswith("approval-"):
            ids = [] if self.name == "approval-list" else [Approval.objects.get().id]
            return reverse(f"agentexec:{self.name}", args=ids)
        if self.name == "conversation-items":
            return reverse(f"agentexec:{self.name}", args=[Conversation.objects.get().id])
        name = f"admin:{self.name}" if self.name in ADMIN else f"agentexec:{self.name}"
        part = AgentCall.objects.get(activity_id=agent_id).id if self.name in ABOUT_A_CALL else "context"
        for arguments in (["shout"] if self.name == "task-enqueue" else [agent_id], [], [agent_id, part]):
            try:
                return reverse(name, args=arguments) + (f"?{TARGET}" if self.name == PAUSE_PAGE else "")
            except NoReverseMatch:
                continue
        raise AssertionError(f"{name} takes other arguments.")


ROUTES = [Route(*item) for rules in (REST, ADMIN) for item in rules.items()]
CLOSED = [route for route in ROUTES if route.permission != ""]
ABOUT_ONE = [route for route in ROUTES if route.name.startswith(("activity-", "approval-", "agentexec_activity_"))]


@dataclass
class World:
    """An activity of each kind, and the rows that a refused request must not change."""

    waiting: UUID
    failed: UUID

    def state(self) -> list[Any]:
        """Return all that a caller could have changed."""
        rows = Activity.objects.order_by("agent_id").values_list("agent_id", "status", "updated_at")
        return [list(rows), ActivityLog.objects.count(), list(Approval.objects.values_list("status", flat=True))]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(shout, "api", True)
    failed = shout.enqueue(Text(text="secret-context"), metadata={"organization_id": "org-1"}).agent_id
    activity.cancel(failed)
    waiting = shout.enqueue(Text(text="secret-context"), metadata={"organization_id": "org-1"}).agent_id
    for agent_id in (waiting, failed):
        AgentCall.objects.create(activity_id=agent_id, kind=CallKind.TOOL, arguments={"text": "secret-context"})
    Approval.objects.create(activity_id=waiting, tool="send_letter", arguments={"text": "secret-context"})
    conversation = Conversation.objects.create(session_id="s", metadata={"organization_id": "org-1"})
    conversation.items.create(position=0, item={"role": "user", "content": "secret-context"})
    return World(waiting, failed)


def caller(*permissions: str, **fields: Any) -> Client:
    made = User.objects.create_user(f"u-{uuid4().hex[:8]}", **fields)
    made.user_permissions.set(
        ModelPermission.objects.filter(codename__in=permissions, content_type__app_label="agentexec")
    )
    client = Client(raise_request_exception=False)
    client.force_login(made)
    return client


def all_but(permission: str | None) -> list[str]:
    return [name for name in (*(str(one) for one in Permission), "delete_activity") if name != permission]


# Each makes a caller who must be refused on a route that needs this permission.
CALLERS: dict[str, Callable[[str | None], Client]] = {
    "anonymous": lambda permission: Client(raise_request_exception=False),
    "plain user": lambda permission: caller(),
    "permission without staff": lambda permission: caller(*all_but(None)),
    "staff without permissions": lambda permission: caller(is_staff=True),
    "inactive superuser": lambda permission: caller(is_staff=True, is_superuser=True, is_active=False),
}


def call(client: Client, method: str, url: str, **headers: str) -> Any:
    body = {"data": json.dumps({"text": "x"}), "content_type": "application/json"} if method[0] == "p" else {}
    return getattr(client, method)(url, headers={"accept": "application/json", **headers}, **body)


def assert_refused(response: Any) -> None:
    assert response.status_code in REFUSED, response.status_code
    assert b"secret-context" not in getattr(response, "content", b"")
    if response.status_code == 302:
        # To the login or, as Django's admin answers for what is not there, to its front page.
        assert "/login/" in response["Location"] or response["Location"] == reverse("admin:index")


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("route", CLOSED, ids=lambda route: route.name)
def test_a_user_without_permission_is_refused(route: Route, who: str, world: World) -> None:
    client, before = CALLERS[who](route.permission), world.state()

    for method in METHODS:
        for agent_id in (world.waiting, world.failed):
            assert_refused(call(client, method, route.url(agent_id)))

    assert world.state() == before


@pytest.mark.parametrize("route", [route for route in CLOSED if route.permission], ids=lambda route: route.name)
def test_a_user_with_all_other_permissions_is_refused(route: Route, world: World) -> None:
    if route.name in ("task-list", "schema"):
        pytest.skip("Open to those who may view, too.")
    client, before = caller(*all_but(route.permission), is_staff=True), world.state()

    for method in ("get", "post"):
        assert call(client, method, route.url(world.failed)).status_code in REFUSED

    assert world.state() == before


@pytest.mark.parametrize("route", [route for route in CLOSED if route.permission], ids=lambda route: route.name)
def test_a_user_with_the_permission_is_accepted(route: Route, world: World) -> None:
    """Prove that the refusals above are caused by the missing permission."""
    if route.name == "agentexec_activity_resume":
        pytest.skip("Takes a form: tests/integration/admin/test_admin_pauses.py.")
    client = caller(VIEW, str(route.permission), is_staff=True)
    needs_end = route.permission in (RETRY, "delete_activity") or route.name == "agentexec_activity_copy"
    agent_id = world.failed if needs_end else world.waiting

    answers = [call(client, method, route.url(agent_id)).status_code for method in ("get", "post")]

    assert set(answers) - REFUSED, answers


@pytest.mark.parametrize("route", ABOUT_ONE, ids=lambda route: route.name)
def test_another_tenant_gets_404(route: Route, world: World, settings: Any) -> None:
    settings.AGENTEXEC = TENANTS
    client, before = caller(*all_but(None), first_name="org-2"), world.state()

    for method in set(METHODS) - {"options"}:  # which describes the route, not the activity
        for agent_id in (world.waiting, world.failed):
            response = call(client, method, route.url(agent_id))
            assert str(agent_id).encode() not in getattr(response, "content", b"") or response.status_code == 404
            if route.name not in ("activity-list", "activity-active-count", "approval-list"):
                assert_refused(response)

    assert world.state() == before


def test_a_tenant_counts_only_its_own(world: World, settings: Any) -> None:
    settings.AGENTEXEC = TENANTS
    ours, theirs = caller(first_name="org-1"), caller(first_name="org-2")
    url = reverse("agentexec:activity-list")

    assert [client.get(url).json()["total"] for client in (ours, theirs)] == [2, 0]


@pytest.mark.parametrize("name", ["activity-cancel", "activity-retry", "task-enqueue"])
def test_a_foreign_page_cannot_use_the_session(name: str, world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    before = world.state()

    response = call(client, "post", Route(name, None).url(world.failed), origin="https://evil.example")

    assert response.status_code == 403
    assert world.state() == before


def test_only_the_overall_health_is_public() -> None:
    response = Client().get(reverse("agentexec:health"))

    assert set(response.json()) == {"ok"}


@pytest.mark.parametrize("action", ["cancel_selected", "retry_selected", "delete_selected"])
def test_an_action_needs_its_own_permission(action: str, world: World) -> None:
    client, before = caller(VIEW, is_staff=True), world.state()
    chosen = {"action": action, "_selected_action": [str(world.waiting), str(world.failed)], "post": "yes"}

    client.post(reverse("admin:agentexec_activity_changelist"), chosen)

    assert world.state() == before


# Websockets

committed = pytest.mark.django_db(transaction=True)  # for a server in another thread


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    settings.ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
    with serve() as running:
        yield running


def cookie_of(client: Client) -> str:
    """Return the session of this user, if any."""
    found = client.cookies.get(settings_module.SESSION_COOKIE_NAME)
    return f"{found.key}={found.value}" if found else ""


async def refusal(server: Server, path: str, cookie: str, agent_id: UUID, origin: str | None = None) -> int:
    """Try to follow and to steer; return the code that the socket was closed with, having sent nothing."""
    async with socket(server, path, cookie=cookie, origin=origin) as page, asyncio.timeout(20):
        with suppress(ConnectionClosed):
            await page.send(cancel=str(agent_id))
        code = await page.closed()
    assert "secret-context" not in str(page.seen)
    assert not [message for message in page.seen if message["type"] != "error"]
    return code


@committed
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("path", SOCKETS)
def test_a_user_without_permission_is_refused_by_the_sockets(path: str, who: str, world: World, server: Server) -> None:
    cookie, before = cookie_of(CALLERS[who](VIEW)), world.state()
    path = "/" + path.replace("<uuid:agent_id>", str(world.waiting))

    assert asyncio.run(refusal(server, path, cookie, world.waiting)) in (4401, 4403, 4404)
    assert world.state() == before


@committed
@pytest.mark.parametrize("path", SOCKETS)
def test_a_foreign_page_cannot_use_the_sockets(path: str, world: World, server: Server) -> None:
    cookie, before = cookie_of(caller(is_staff=True, is_superuser=True)), world.state()
    path = "/" + path.replace("<uuid:agent_id>", str(world.waiting))

    assert asyncio.run(refusal(server, path, cookie, world.waiting, "https://evil.example")) == 4403
    assert world.state() == before


@committed
def test_a_socket_of_another_tenant_receives_nothing(world: World, server: Server, settings: Any) -> None:
    settings.AGENTEXEC = TENANTS
    cookie, before = cookie_of(caller(first_name="org-2")), world.state()

    assert asyncio.run(refusal(server, f"/{SOCKETS[0]}{world.waiting}/", cookie, world.waiting)) == 4404
    answers = asyncio.run(commands(server, cookie, world.waiting))

    assert answers == ["snapshot []", "not_found", "not_found", "not_found"]
    assert world.state() == before


@committed
@pytest.mark.parametrize(("permission", "verb"), [(CANCEL, "cancel"), (RETRY, "retry")])
def test_a_command_over_a_socket_needs_its_own_permission(
    permission: str, verb: str, world: World, server: Server
) -> None:
    cookie, before = cookie_of(caller(*all_but(permission), is_staff=True)), world.state()

    answers = asyncio.run(commands(server, cookie, world.waiting, verb))

    assert answers[1:] == ["forbidden"]
    assert world.state() == before


async def commands(server: Server, cookie: str, agent_id: UUID, *verbs: str) -> list[str]:
    """Return what the feed's socket answers: the snapshot's ids, then the code of each answer."""
    async with socket(server, cookie=cookie) as page, asyncio.timeout(20):
        snapshot = await page.read_until("snapshot")
        answers = [f"snapshot {[each['agent_id'] for each in snapshot['activities']]}"]
        for verb in verbs or ("cancel", "retry", "subscribe"):
            await page.send(**{verb: [str(agent_id)] if verb == "subscribe" else str(agent_id)})
            answers.append((await page.read_until("error"))["code"])
    return answers
