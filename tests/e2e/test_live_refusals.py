"""Who is refused: at the door, at each command, and when what they may do changes while they are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone

from django_agentexec import activity
from django_agentexec.live.routing import websocket_urlpatterns
from django_agentexec.live.websocket import consumers
from tests.integration.test_policy import user
from tests.support.activity_rows import row
from tests.support.asgi_server import FEED, Server, client, cookie_of, in_database, path_of, serve
from tests.support.pool_process import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.e2e]

TENANTS = {"POLICY": "tests.integration.test_policy.OrganizationPolicy"}
ROUTES = {"feed": FEED, "activity": f"{FEED}{{agent_id}}/"}


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    settings.ALLOWED_HOSTS = ["127.0.0.1", ".ours.example"]
    with serve() as running:
        yield running


@pytest.fixture
def viewer() -> User:
    """Staff that may look, and nothing else."""
    return user("viewer", "view_activity", is_staff=True)


@pytest.fixture
def run() -> Any:
    """The id of an activity of tenant org-1."""
    return activity.create("import", metadata={"organization_id": "org-1"})


async def refusal(server: Server, path: str, **options: Any) -> int:
    """Return the code with which the server closes, having sent nothing."""
    async with client(server, path, **options) as page, asyncio.timeout(PATIENCE):
        code = await page.closed()
    assert page.seen == []
    return code


def test_every_route_is_tested_here() -> None:
    assert len(websocket_urlpatterns) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(
    "origin",
    ["", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "null", "http://other.ours.example"],
)
async def test_a_foreign_origin_is_refused(server: Server, viewer: User, run: Any, route: str, origin: str) -> None:
    path = route.format(agent_id=run)
    cookie = await in_database(cookie_of, viewer)

    assert await refusal(server, path, cookie=cookie, origin=origin) == 4403


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("cookie", ["", "sessionid=none"])
async def test_who_is_not_signed_in_is_refused(server: Server, run: Any, route: str, cookie: str) -> None:
    assert await refusal(server, route.format(agent_id=run), cookie=cookie) == 4401


@pytest.mark.parametrize(("route", "code"), [(ROUTES["feed"], 4403), (ROUTES["activity"], 4404)], ids=ROUTES)
async def test_who_may_not_view_is_refused(server: Server, run: Any, route: str, code: int) -> None:
    stranger = await in_database(user, "stranger", "view_activity")
    cookie = await in_database(cookie_of, stranger)

    assert await refusal(server, route.format(agent_id=run), cookie=cookie) == code


@pytest.mark.parametrize("path", [f"{FEED}00000000-0000-7000-8000-000000000000/"])
async def test_what_does_not_exist_is_refused(server: Server, viewer: User, path: str) -> None:
    assert await refusal(server, path, cookie=await in_database(cookie_of, viewer)) == 4404


async def test_a_trusted_origin_is_let_in(server: Server, viewer: User, settings: Any) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.pages.example"]
    cookie = await in_database(cookie_of, viewer)

    async with client(server, FEED, cookie=cookie, origin="https://our.pages.example") as page:
        assert (await page.read())["type"] == "snapshot"


async def test_a_tenant_sees_its_own_and_nothing_of_others(server: Server, run: Any, settings: Any) -> None:
    settings.AGENTEXEC = TENANTS
    own, other = [await in_database(user, name, first_name=name) for name in ("org-1", "org-2")]
    own_cookie, other_cookie = [await in_database(cookie_of, each) for each in (own, other)]

    async with (
        client(server, FEED, cookie=own_cookie) as own_page,
        client(server, FEED, cookie=other_cookie) as other_page,
        asyncio.timeout(PATIENCE),
    ):
        await own_page.read()
        await other_page.read()
        for message in ({"subscribe": [str(run)]}, {"cancel": str(run)}, {"retry": str(run)}):
            await other_page.send(**message)
            assert (await other_page.read())["code"] == "not_found"
        await activity.aupdate(run, "secret")
        theirs = await activity.acreate("import", metadata={"organization_id": "org-2"})
        assert (await own_page.read_until("activity"))["activity"]["agent_id"] == str(run)
        assert (await other_page.read_until("activity"))["activity"]["agent_id"] == str(theirs)
    assert await refusal(server, path_of(run), cookie=other_cookie) == 4404

    assert own_page.seen[0]["activities"][0]["agent_id"] == str(run)
    assert other_page.seen[0]["activities"] == []
    assert (await in_database(row, run)).status == "running"


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_command_needs_its_permission(server: Server, viewer: User, run: Any, verb: str) -> None:
    cookie = await in_database(cookie_of, viewer)

    async with client(server, path_of(run), cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.send(**{verb: str(run), "request": 1})
        error = await page.read_until("error")

    assert (error["code"], error["request"]) == ("forbidden", 1)
    assert (await in_database(row, run)).status == "queued"


async def test_a_permission_counts_as_it_is_at_the_command(server: Server, run: Any) -> None:
    steering = await in_database(user, "steering", "view_activity", "cancel_activity", is_staff=True)
    cookie = await in_database(cookie_of, steering)

    async with client(server, path_of(run), cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await steering.user_permissions.aclear()
        await page.send(cancel=str(run))
        assert (await page.read_until("error"))["code"] == "not_found"


async def test_a_command_after_the_logout_ends_the_socket(server: Server, viewer: User, run: Any) -> None:
    cookie = await in_database(cookie_of, viewer)

    async with client(server, FEED, cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await Session.objects.all().adelete()
        await page.send(subscribe=[str(run)])
        assert await page.closed() == 4401


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ("logout", {4401}),
        ("expired", {4401}),
        ("deactivated", {4401}),
        ("new password", {4401}),
        ("demoted", {4403, 4404}),
    ],
)
async def test_a_socket_ends_with_its_users_rights(
    server: Server, viewer: User, run: Any, monkeypatch: pytest.MonkeyPatch, route: str, change: str, codes: set[int]
) -> None:
    monkeypatch.setattr(consumers, "RECHECK_INTERVAL", 0.2)
    cookie = await in_database(cookie_of, viewer)

    async with client(server, route.format(agent_id=run), cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.read()
        if change == "logout":
            await Session.objects.all().adelete()
        elif change == "expired":
            await Session.objects.aupdate(expire_date=timezone.now())
        elif change == "demoted":
            await viewer.user_permissions.aclear()
        elif change == "deactivated":
            await User.objects.filter(pk=viewer.pk).aupdate(is_active=False)
        else:
            await User.objects.filter(pk=viewer.pk).aupdate(password="another")
        assert await page.closed() in codes


async def test_a_subscription_ends_when_the_activity_becomes_invisible(
    server: Server, run: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "RECHECK_INTERVAL", 0.2)
    settings.AGENTEXEC = TENANTS
    member = await in_database(user, "member", first_name="org-1")
    cookie = await in_database(cookie_of, member)

    async with client(server, path_of(run), cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.read()
        await User.objects.filter(pk=member.pk).aupdate(first_name="org-2")
        assert await page.closed() == 4404


@pytest.mark.parametrize(("fields", "traceback"), [({"first_name": "org-1"}, ""), ({"is_superuser": True}, "line 7")])
async def test_tracebacks_are_for_those_who_run_the_servers(
    fields: dict[str, Any], traceback: str, server: Server, settings: Any
) -> None:
    settings.AGENTEXEC = TENANTS
    cookie = await in_database(lambda: cookie_of(user("jo", is_staff="is_superuser" in fields, **fields)))
    agent_id = await activity.acreate("import", metadata={"organization_id": "org-1"})

    async with client(server, path_of(agent_id), cookie=cookie) as page, asyncio.timeout(PATIENCE):
        await page.read_until("snapshot")
        await activity.aerror(agent_id, "It broke.", traceback="line 7")
        end = await page.read_until_status("error")

    assert end["activity"]["error"] == "It broke."
    # A line may come a message before the status that it came with: the rows are read one after the other.
    assert [line["traceback"] for line in page.lines if line["status"] == "error"] == [traceback]
