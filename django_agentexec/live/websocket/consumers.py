"""The websockets: `FeedConsumer` follows all that its user may see, `ActivityConsumer` one activity.

The protocol is in docs/live.md. Origin and session are checked here, whatever the project's routing does; what
is followed, and all that is told, comes from `events`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseUnavailable

from ...conf import conf
from ...exceptions import ActivityNotFound
from ...live import Follower
from ...policy import Permission
from ...queues.live import is_stream_id
from ...redaction import redact_internals
from ..limits import holder_of, live_connections, read_turn
from ..messages import Json
from ..threads import end_tasks, in_thread
from . import auth
from .auth import FORBIDDEN, NO_SUCH_ACTIVITY, Refused
from .commands import MAX_IDS, Command, Invalid, Unreadable, log_id, parse
from .origin import is_own_origin
from .rate import Allowance

if TYPE_CHECKING:
    from ...policy import User

logger = logging.getLogger(__name__)

UNREADABLE = 4400
TOO_SLOW = 4408
TOO_MANY = 4429
FAILED = 1011  # RFC 6455: an unexpected condition on the server's side

SEND_TIMEOUT = 10.0  # seconds that a client may take no message before it counts as too slow
CLOSE_TIMEOUT = 30.0  # seconds that it then has to read the reason
# Seconds between two looks whether the user is still signed in and may still follow; with the look itself, 30 at most.
ASK_AGAIN = 25.0
MAX_FAILED_LOOKS = 3  # in a row, while the database is unavailable
MAX_UNSENT = 500  # answers and snapshots that wait for a client
STEERING = {"cancel": Permission.CANCEL, "retry": Permission.RETRY}


P = ParamSpec("P")
T = TypeVar("T")


class _Gone(Exception):
    """The client is connected no more."""


class _Socket(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """What both sockets share. `follow` and `check` are the subclasses' own."""

    channel_layer_alias = ""  # none: the followers of a process share one ear on the layer
    follower: Follower

    async def follow(self, user: User) -> None:
        """Begin to follow what this socket is for. Raises `Refused`, `Invalid`, `ActivityNotFound`."""
        raise NotImplementedError

    async def check(self, user: User) -> None:
        """Raise `Refused` if `user` may not follow any more what this socket is for."""
        raise NotImplementedError

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the blocking `function` returns, in one of the few turns that the socket's user has at once."""
        async with read_turn(self._holder):
            return await in_thread(function, *args, **kwargs)

    # From opening to closing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._main = asyncio.current_task()
        self._tasks: list[asyncio.Task[None]] = []
        self._allowance = Allowance()
        self._seq = 0
        self._is_closing = self._is_dropped = self._shows_servers = self._is_counted = False
        self._holder = holder_of(scope.get("user"), str((scope.get("client") or [""])[0]))
        self.follower = Follower(self._holder)
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            if not self._is_dropped:
                raise
        finally:
            self._is_closing = True
            if self._is_counted:
                live_connections.release(self._holder)
            await end_tasks(self._tasks)
            await self.follower.close()

    async def connect(self) -> None:
        """Accept, then check: a socket that is refused before it is open cannot tell why."""
        await self.accept()
        if not is_own_origin(self.scope):
            await self.end(FORBIDDEN, "This origin may not connect.")
            return
        self._is_counted = live_connections.acquire(self._holder, conf.LIVE_MAX_CONNECTIONS)
        if not self._is_counted:
            await self.end(TOO_MANY, f"You have {conf.LIVE_MAX_CONNECTIONS} live connections; close others first.")
            return
        try:
            user = await self.read(auth.signed_in, self.scope)
            self._shows_servers = await self.read(auth.shows_servers, user)
            await self.follow(user)
        except Refused as refusal:
            await self.end(refusal.close_code, str(refusal))
        except ActivityNotFound as error:
            await self.end(NO_SUCH_ACTIVITY, str(error))
        except Invalid as error:
            await self.end(UNREADABLE, str(error))
        else:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._write()), loop.create_task(self._guard())]

    async def disconnect(self, code: int) -> None:
        """Send nothing more: the client has gone, or the server has closed."""
        self._is_closing = True

    async def end(self, code: int, reason: str) -> None:
        """Close the socket, once; drop it if the client does not even read that."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close(code, _short(reason))
        except Exception as error:  # noqa: BLE001  # gone already, or does not read
            logger.debug("A websocket ended before it was closed with %d: %s", code, error)
            self._is_dropped = True
            if self._main is not None:
                self._main.cancel()

    # Towards the client

    async def _write(self) -> None:
        try:
            while not self._is_closing:
                message = await self.follower.next()
                if self._is_last(message):
                    await self.end(NO_SUCH_ACTIVITY, str(message["message"]))
                    return
                if len(self.follower.send_buffer) > MAX_UNSENT:
                    raise TimeoutError
                async with asyncio.timeout(SEND_TIMEOUT):
                    await self._send(message)
        except TimeoutError:
            await self.end(TOO_SLOW, "Too slow. Connect again with ?after= the last log id that you have.")
        except _Gone:
            return
        except Exception:
            logger.exception("A websocket failed.")
            await self.end(FAILED, "The server failed.")

    async def _send(self, message: Json) -> None:
        self._seq += 1
        message = message if self._shows_servers else redact_internals(message)
        text = json.dumps({"type": message["type"], "seq": self._seq, **message}, separators=(",", ":"))
        if self._is_closing:
            return  # after a close, an ASGI server takes no message
        try:
            await self.send(text_data=text)
        except Exception as error:  # each server has an exception of its own for a connection that has ended
            raise _Gone from error

    def _is_last(self, message: Json) -> bool:
        """Whether the socket has nothing to live for after this message."""
        return False

    async def _guard(self) -> None:
        failed = 0
        while not self._is_closing:
            await asyncio.sleep(ASK_AGAIN)
            try:
                user = await self.read(auth.signed_in, self.scope)
                await self.check(user)
                self._shows_servers = await self.read(auth.shows_servers, user)
                self.follower.renew(user)
                await self._drop_invisible(user)
                failed = 0
            except Refused as refusal:
                await self.end(refusal.close_code, str(refusal))
            except DatabaseUnavailable:
                # Nothing is sent from the database meanwhile either.
                failed += 1
                logger.warning("A websocket's permissions could not be checked.", exc_info=True)
                if failed >= MAX_FAILED_LOOKS:
                    await self.end(FAILED, "Your permissions cannot be checked at present.")
            except Exception:
                logger.exception("A websocket's permissions could not be checked; it is closed.")
                await self.end(FAILED, "Your permissions cannot be checked.")

    async def _drop_invisible(self, user: User) -> None:
        followed = self.follower.activities
        for agent_id in set(followed) - await self.read(auth.still_visible, user, followed):
            await self.follower.unfollow(agent_id)
            self.follower.send_buffer.put(_error("not_found", f"There is no activity {agent_id}."))

    # From the client

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer a message: `done`, `error`, or a close with 4400 for what is no message."""
        if self._is_closing:
            return
        if not self._allowance.take():
            await self.end(UNREADABLE, "Too many messages.")
            return
        try:
            command = parse(text_data)
            if command is not None:
                await self._obey(command)
        except Unreadable as error:
            await self.end(UNREADABLE, str(error))
        except Invalid as error:
            self.follower.send_buffer.put(_error("invalid", str(error), error.request))
        except Exception:
            # For example a database that is away: the socket and what it follows may well survive that.
            logger.exception("A message over a websocket could not be answered.")
            self.follower.send_buffer.put(_error("failed", "The server could not do this; try again."))

    async def _obey(self, command: Command) -> None:
        try:
            user = await self.read(auth.signed_in, self.scope)
            if command.verb in STEERING:
                await self.read(auth.steer, user, command.agent_ids[0], STEERING[command.verb])
            elif command.verb == "subscribe":
                await self._subscribe(user, command)
            else:
                for agent_id in command.agent_ids:
                    await self.follower.unfollow(agent_id)
        except Refused as refusal:
            if refusal.close_code == auth.NOT_SIGNED_IN:
                await self.end(refusal.close_code, str(refusal))
                return
            answer = _error(refusal.code, str(refusal), command.request)
        else:
            answer = {"type": "done", "request": command.request}
        self.follower.send_buffer.put(answer)

    async def _subscribe(self, user: User, command: Command) -> None:
        """Follow those that exist; raise `Refused` for the first of the others."""
        new = set(command.agent_ids) - set(self.follower.activities)
        if len(self.follower.activities) + len(new) > MAX_IDS:
            raise Refused(FORBIDDEN, "too_many", f"A socket follows {MAX_IDS} activities at most.")
        refusal: Refused | None = None
        for agent_id in command.agent_ids:
            try:
                await self.read(auth.check_activity, user, agent_id, Permission.VIEW)
                await self.follower.follow_activity(agent_id, command.after.get(agent_id))
            except Refused as error:
                refusal = refusal or error
            except ActivityNotFound as error:
                refusal = refusal or Refused(NO_SUCH_ACTIVITY, "not_found", str(error))
        if refusal is not None:
            raise refusal


class FeedConsumer(_Socket):
    """`ws/agents/activities/`: the feed of the user's audience."""

    audience = ""

    async def follow(self, user: User) -> None:
        """Begin with a snapshot of what `user` may see."""
        self.audience = await self.read(auth.feed_of, user)
        await self.follower.follow_feed(self.audience, user)

    async def check(self, user: User) -> None:
        """Raise `Refused` if the user has no feed any more, or another one."""
        if await self.read(auth.feed_of, user) != self.audience:
            raise Refused(FORBIDDEN, "forbidden", "You follow another feed now; connect again.")


class ActivityConsumer(_Socket):
    """`ws/agents/activities/{agent_id}/`, with `?after=` and `?stream_after=`."""

    @property
    def agent_id(self) -> UUID:
        """The activity that the path names."""
        agent_id: UUID = self.scope["url_route"]["kwargs"]["agent_id"]
        return agent_id

    async def follow(self, user: User) -> None:
        """Begin with a snapshot of the activity, with the lines that the client does not have."""
        after_text, stream_after = self._parameter("after"), self._parameter("stream_after")
        after = None if after_text is None else log_id(after_text)
        if stream_after is not None and not is_stream_id(stream_after):
            raise Invalid(f"{stream_after[:50]!r} is no position in a stream.", None)
        await self.read(auth.check_activity, user, self.agent_id, Permission.VIEW)
        await self.follower.follow_activity(self.agent_id, after, stream_after)

    def _parameter(self, name: str) -> str | None:
        """Return a parameter of the address. Raises `Invalid` for several."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin1"), keep_blank_values=True)
        values = query.get(name, [])
        if len(values) > 1:
            raise Invalid(f"Give one value of {name!r}, not {len(values)}.", None)
        return values[0] if values else None

    async def check(self, user: User) -> None:
        """Raise `Refused` if the user may not see the activity any more."""
        await self.read(auth.check_activity, user, self.agent_id, Permission.VIEW)

    def _is_last(self, message: Json) -> bool:
        return message["type"] == "error" and message.get("agent_id") == str(self.agent_id)


def _error(code: str, message: str, request: object = None) -> Json:
    return {"type": "error", "code": code, "message": message, "request": request}


def _short(reason: str) -> str:
    """Return as much of `reason` as a close frame holds: 123 bytes (RFC 6455, section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
