"""Server-sent events of one activity: the stream, where it resumes, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.test import AsyncClient, override_settings
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed

from django_agentexec import activity
from django_agentexec.api import events as events_module
from django_agentexec.api.events import ActivityEventsView
from django_agentexec.live import subscriber
from django_agentexec.live.websocket import consumers
from django_agentexec.models import Activity, ActivityLog
from tests.support.pool_process import PATIENCE
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.support.waits import live_clients

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Event:
    """An event as a browser's EventSource has it."""

    id: str
    kind: str
    data: dict[str, Any]


def url(agent_id: object) -> str:
    return f"/agents/activities/{agent_id}/events/"


async def signed_in(user: User) -> AsyncClient:
    made = AsyncClient()
    await made.aforce_login(user)
    return made


async def events(response: Any) -> AsyncIterator[Event]:
    """Yield the events of a response, without comments."""
    text = ""
    async for chunk in response.streaming_content:
        text += chunk.decode()
        while "\n\n" in text:
            block, _, text = text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))


async def all_of(response: Any) -> list[Event]:
    """Return the events up to the end of the stream."""
    async with asyncio.timeout(PATIENCE):
        return [event async for event in events(response)]


def lines(seen: list[Event]) -> list[str]:
    """Return the log as the client has it."""
    found: list[str] = []
    for event in seen:
        logs = event.data["activity"]["logs"] if event.kind == "snapshot" else event.data.get("logs", [])
        found += [line["message"] for line in logs]
    return found


async def test_a_run_is_told_from_its_snapshot_to_its_end() -> None:
    run = await activity.acreate("import", "Waiting")
    who = await signed_in(await sync_to_async(admin)())
    response = await who.get(url(run), headers={"Accept": "text/event-stream"})

    async with asyncio.timeout(PATIENCE):
        stream = events(response)
        seen = [await anext(stream)]
        await activity.aupdate(run, "Reading", 30)
        await activity.acomplete(run, "Done")
        seen += [event async for event in stream]

    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-cache"
    assert seen[0].kind == "snapshot"
    assert {event.kind for event in seen[1:]} == {"activity"}
    assert lines(seen) == ["Waiting", "Reading", "Done"]
    last = await ActivityLog.objects.filter(activity_id=run).alatest("id")
    assert seen[-1].id == str(last.pk)
    assert "seq" not in seen[0].data


async def test_a_client_that_was_cut_off_gets_what_it_missed() -> None:
    run = await activity.acreate("import", "first")
    who = await signed_in(await sync_to_async(admin)())
    stream = events(await who.get(url(run)))
    async with asyncio.timeout(PATIENCE):
        known = await anext(stream)
    await stream.aclose()
    await activity.aupdate(run, "second")
    await activity.acomplete(run, "third")

    seen = await all_of(await who.get(url(run), headers={"Last-Event-ID": known.id}))

    assert lines(seen) == ["second", "third"]


async def test_streamed_text_is_told_and_resumed() -> None:
    run = await activity.acreate("import")
    await activity.aupdate(run, "Reading")
    who = await signed_in(await sync_to_async(admin)())
    stream = events(await who.get(url(run)))
    async with asyncio.timeout(PATIENCE):
        await anext(stream)
        activity.stream(run, "Once ")
        delta = await anext(stream)
        await stream.aclose()
        activity.stream(run, "upon")
        again = events(await who.get(url(run), headers={"Last-Event-ID": delta.id}))
        seen = [await anext(again), await anext(again)]
        await again.aclose()

    assert (delta.kind, delta.data["text"]) == ("delta", "Once ")
    assert [event.data.get("text") for event in seen] == [None, "upon"]


async def test_text_that_is_taken_back_is_an_event_and_not_replayed() -> None:
    run = await activity.acreate("import")
    await activity.aupdate(run, "Reading")
    who = await signed_in(await sync_to_async(admin)())
    stream = events(await who.get(url(run)))
    async with asyncio.timeout(PATIENCE):
        await anext(stream)
        activity.stream(run, "You should sue.")
        delta = await anext(stream)
        activity.retract_stream(run)
        retraction = await anext(stream)
        await stream.aclose()
        activity.stream(run, "I cannot say.")
        again = events(await who.get(url(run), headers={"Last-Event-ID": delta.id}))
        seen = [await anext(again)]
        while seen[-1].kind != "delta":
            seen.append(await anext(again))
        await again.aclose()

    assert (delta.kind, retraction.kind) == ("delta", "retract")
    assert retraction.id != delta.id
    assert [event.kind for event in seen][-2:] == ["retract", "delta"]
    assert seen[-1].data["text"] == "I cannot say."


async def test_who_knows_the_end_is_told_not_to_come_back() -> None:
    run = await activity.acreate("import")
    await activity.acancel(run)
    who = await signed_in(await sync_to_async(admin)())
    (event,) = await all_of(await who.get(url(run)))

    assert (await who.get(url(run), headers={"Last-Event-ID": event.id})).status_code == 204
    assert (await who.get(url(run), headers={"Last-Event-ID": "0"})).status_code == 200


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "PING_INTERVAL", 0.01)
    run = await activity.acreate("import")
    who = await signed_in(await sync_to_async(admin)())
    response = await who.get(url(run))

    async with asyncio.timeout(PATIENCE):
        async for chunk in response.streaming_content:
            if chunk == b": ping\n\n":
                break
    await response.streaming_content.aclose()


@override_settings(AGENTEXEC={"POLICY": POLICY})
async def test_tracebacks_are_for_those_who_may_see_the_servers() -> None:
    run = await activity.acreate("import", metadata={"organization_id": "org-1"})
    await activity.aerror(run, "no", traceback="Traceback of a server")

    seen = {}
    for user in (await sync_to_async(member)("org-1"), await sync_to_async(admin)()):
        (event,) = await all_of(await (await signed_in(user)).get(url(run)))
        seen[user.username] = event.data["activity"]["traceback"], event.data["activity"]["logs"][-1]["traceback"]

    assert seen == {"member-of-org-1": ("", ""), "admin": ("Traceback of a server",) * 2}


@override_settings(AGENTEXEC={"POLICY": POLICY})
async def test_who_may_not_see_it_any_more_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECHECK_INTERVAL", 0.0)
    monkeypatch.setattr(subscriber, "PING_INTERVAL", 0.01)
    run = await activity.acreate("import", metadata={"organization_id": "org-1"})
    user = await sync_to_async(member)("org-1")
    response = await (await signed_in(user)).get(url(run))
    await User.objects.filter(pk=user.pk).aupdate(first_name="org-2")

    seen = await all_of(response)

    assert lines(seen) in ([], ["Waiting to start."])
    assert await Activity.objects.filter(pk=run, status="queued").aexists()


CHANGES: dict[str, Callable[[User], Any]] = {
    "logout": lambda user: Session.objects.all().adelete(),
    "session expired": lambda user: Session.objects.aupdate(expire_date=timezone.now()),
    "new password": lambda user: User.objects.filter(pk=user.pk).aupdate(password="another"),
    "deactivated": lambda user: User.objects.filter(pk=user.pk).aupdate(is_active=False),
    "no permission": lambda user: user.user_permissions.aclear(),
    "deleted": lambda user: User.objects.filter(pk=user.pk).adelete(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_quiet_stream_ends_with_its_users_rights(
    change: Callable[[User], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        subscriber, "RECHECK_INTERVAL", 0.05
    )  # and not at the next message or comment, which are far away
    run = await activity.acreate("import")
    user = await sync_to_async(staff)("viewer", "view_activity")
    stream = events(await (await signed_in(user)).get(url(run)))

    async with asyncio.timeout(PATIENCE):
        seen = [await anext(stream)]
        await change(user)
        seen += [event async for event in stream]

    assert [event.kind for event in seen] == ["snapshot"]


async def test_an_overdue_check_of_rights_waits_for_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECHECK_INTERVAL", 0.0)  # overdue when the client asks for the next message
    run = await activity.acreate("import")
    stream = events(await (await signed_in(await sync_to_async(staff)("viewer", "view_activity"))).get(url(run)))

    async with asyncio.timeout(PATIENCE):
        seen = [await anext(stream)]
        await Session.objects.all().adelete()
        seen += [event async for event in stream]

    assert [event.kind for event in seen] == ["snapshot"]


def test_the_rights_of_live_connections_are_checked_every_30_seconds() -> None:
    assert max(subscriber.RECHECK_INTERVAL, consumers.RECHECK_INTERVAL) <= 28  # leaving time for the check itself


class TokenAuthentication(BaseAuthentication):
    """A token per user, in a header."""

    valid: ClassVar[dict[str, User]] = {}

    def authenticate(self, request: Any) -> tuple[User, str] | None:
        token = request.headers.get("Authorization")
        if token is None:
            return None
        if token not in self.valid:
            raise AuthenticationFailed
        return self.valid[token], token


async def test_a_stream_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECHECK_INTERVAL", 0.05)
    monkeypatch.setattr(subscriber, "PING_INTERVAL", 0.01)
    monkeypatch.setattr(ActivityEventsView, "authentication_classes", [SessionAuthentication, TokenAuthentication])
    monkeypatch.setattr(TokenAuthentication, "valid", {"t": await sync_to_async(admin)()})
    run = await activity.acreate("import")
    response = await AsyncClient().get(url(run), headers={"Authorization": "t"})
    comments = 0

    async with asyncio.timeout(PATIENCE):
        async for chunk in response.streaming_content:
            comments += chunk == b": ping\n\n"
            if comments == 20:  # some checks have been passed
                TokenAuthentication.valid.clear()

    assert comments >= 20


@override_settings(AGENTEXEC={"POLICY": POLICY})
async def test_who_may_see_the_servers_no_more_gets_no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECHECK_INTERVAL", 0.0)
    run = await activity.acreate("import", metadata={"organization_id": "org-1"})
    user = await User.objects.acreate(username="both", first_name="org-1", is_staff=True, is_superuser=True)
    stream = events(await (await signed_in(user)).get(url(run)))

    async with asyncio.timeout(PATIENCE):
        await anext(stream)
        await User.objects.filter(pk=user.pk).aupdate(is_superuser=False)
        await activity.aerror(run, "no", traceback="Traceback of a server")
        found = [event async for event in stream]

    assert found[-1].data["activity"]["status"] == "error"
    assert [line["traceback"] for event in found for line in event.data.get("logs", ())] == [""]


async def test_a_database_that_is_unavailable_for_a_moment_ends_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECHECK_INTERVAL", 0.0)
    monkeypatch.setattr(subscriber, "PING_INTERVAL", 0.01)
    run = await activity.acreate("import")
    stream = events(await (await signed_in(await sync_to_async(admin)())).get(url(run)))
    checks = iter(
        [OperationalError(), OperationalError(), None, OperationalError(), OperationalError(), OperationalError()]
    )
    passed: list[User] = []
    reload_user = events_module.reload_user

    def check(*arguments: Any) -> User:
        if (error := next(checks)) is not None:
            raise error
        passed.append(reload_user(*arguments))
        return passed[-1]

    async with asyncio.timeout(PATIENCE):
        await anext(stream)
        monkeypatch.setattr(events_module, "reload_user", check)
        assert [event async for event in stream] == []

    assert [user.username for user in passed] == ["admin"]
    assert next(checks, "none left") == "none left"


@override_settings(AGENTEXEC={"LIVE_MAX_CONNECTIONS": 2})
async def test_a_user_has_a_limited_number_of_streams() -> None:
    run = await activity.acreate("import")
    who, other = [await signed_in(await sync_to_async(staff)(name, "view_activity")) for name in ("a", "b")]
    responses = [await who.get(url(run)) for _ in range(2)]
    async with asyncio.timeout(PATIENCE):
        for response in responses:
            await anext(events(response))

        refused = await who.get(url(run))
        of_other = await other.get(url(run))
        await sync_to_async(responses[0].close)()  # as the server does
        again = await who.get(url(run))
        kinds = [(await anext(events(response))).kind for response in (of_other, again)]
        for response in (*responses, of_other, again):
            await response._iterator.aclose()

    assert (refused.status_code, again.status_code, of_other.status_code) == (429, 200, 200)
    assert kinds == ["snapshot", "snapshot"]
    assert live_clients() == 0
    assert int(refused["Retry-After"]) > 0


async def test_without_permission_there_is_no_stream() -> None:
    run = await activity.acreate("import")

    assert (await AsyncClient().get(url(run))).status_code == 403
    assert (await (await signed_in(await sync_to_async(member)("org-1"))).get(url(run))).status_code == 403


@pytest.mark.parametrize(
    "position",
    [
        "yesterday",
        "",
        "-1",
        "1/",
        "1/1",
        "1/$",
        "1/1-1/2",
        "1/99999999999999999999-0",
        "1/0-9223372036854775808",
        "9223372036854775808",
        "\N{SUPERSCRIPT TWO}",
        "1_0",
    ],
)
async def test_an_impossible_position_is_named(position: str) -> None:
    run = await activity.acreate("import")
    who = await signed_in(await sync_to_async(admin)())

    answer = await who.get(url(run), headers={"Last-Event-ID": position})

    assert answer.status_code == 400
    assert repr(position) in answer.json()["Last-Event-ID"][0]


def test_a_wsgi_server_cannot_stream_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run, who = activity.create("import"), client(admin())

    answer = [who.get(url(run)) for _ in range(3)][-1]

    assert answer.status_code == 501
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert "ASGI" in answer.json()["detail"]
