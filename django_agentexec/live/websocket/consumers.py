"""Websocket consumers: `FeedConsumer` follows everything that its user may see, `ActivityConsumer` one activity.

docs/live.md describes the protocol. Origin and session are checked here, independently of the project's routing; the
subscriptions and their messages come from `django_agentexec.live`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseUnavailable
from django.utils.translation import gettext as _

from ...conf import conf
from ...exceptions import ActivityNotFound
from ...policy import Permission
from ...queues.live import is_stream_id
from ...threads import in_thread
from .. import messages
from ..channel_layer import end_tasks
from ..connections import holder_of, live_connections, read_turn, too_many_connections
from ..messages import Message
from ..subscriber import Follower
from . import auth
from .auth import ACTIVITY_NOT_FOUND, FORBIDDEN, Refused
from .commands import MAX_IDS, Command, Invalid, RateLimit, Unreadable, log_id, parse

if TYPE_CHECKING:
    from ...policy import User

logger = logging.getLogger(__name__)

UNREADABLE = 4400
TOO_SLOW = 4408
TOO_MANY = 4429
FAILED = 1011  # RFC 6455: an unexpected condition on the server

SEND_TIMEOUT = 10.0  # seconds after which a client that takes no message counts as too slow
CLOSE_TIMEOUT = 30.0  # seconds that a slow client then has to read the reason
RECHECK_INTERVAL = 25.0  # seconds between two permission checks; with the check itself, at most 30
MAX_FAILED_CHECKS = 3  # in a row, while the database is unavailable
MAX_UNSENT = 500  # answers and snapshots that wait for a client
ACTIONS = {"cancel": Permission.CANCEL, "retry": Permission.RETRY}

P = ParamSpec("P")
T = TypeVar("T")


class _Disconnected(Exception):
    """The client has disconnected."""


class _BaseConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    """The base of both consumers. Subclasses implement `follow` and `check`."""

    channel_layer_alias = ""  # none: the hub of the process reads the layer for all sockets
    follower: Follower

    async def follow(self, user: User) -> None:
        """Start the subscription of this socket. Raises `Refused`, `Invalid`, `ActivityNotFound`."""
        raise NotImplementedError

    async def check(self, user: User) -> None:
        """Raise `Refused` if `user` has lost the permission for this socket's subscription."""
        raise NotImplementedError

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the blocking `function` in a thread, within the limit of concurrent reads of the socket's user."""
        async with read_turn(self._holder):
            return await in_thread(function, *args, **kwargs)

    # Lifecycle

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._main = asyncio.current_task()
        self._tasks: list[asyncio.Task[None]] = []
        self._rate_limit = RateLimit()
        self._seq = 0
        self._is_closing = self._is_dropped = self._sees_internals = self._is_counted = False
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
        """Accept, then check: a socket that is refused before it is open has no close code."""
        await self.accept()
        if not auth.is_allowed_origin(self.scope):
            await self.end(FORBIDDEN, _("This origin may not connect."))
            return
        self._is_counted = live_connections.acquire(self._holder, conf.LIVE_MAX_CONNECTIONS)
        if not self._is_counted:
            await self.end(TOO_MANY, too_many_connections(conf.LIVE_MAX_CONNECTIONS))
            return
        try:
            user = await self.read(auth.authenticate, self.scope)
            self._sees_internals = await self.read(auth.sees_internals, user)
            await self.follow(user)
        except Refused as refusal:
            await self.end(refusal.close_code, str(refusal))
        except ActivityNotFound as error:
            await self.end(ACTIVITY_NOT_FOUND, str(error))
        except Invalid as error:
            await self.end(UNREADABLE, str(error))
        else:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._write()), loop.create_task(self._recheck())]

    async def disconnect(self, code: int) -> None:
        """Stop sending: the client has disconnected, or the server has closed."""
        self._is_closing = True

    async def end(self, code: int, reason: str) -> None:
        """Close the socket, once; drop it if the client does not read the close frame."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close(code, _short(reason))
        except Exception as error:  # noqa: BLE001  # disconnected already, or not reading
            logger.debug("A websocket ended before it could be closed with %d: %s", code, error)
            self._is_dropped = True
            if self._main is not None:
                self._main.cancel()

    # To the client

    async def _write(self) -> None:
        try:
            while not self._is_closing:
                message = await self.follower.send_buffer.next()
                if self._is_last(message):
                    await self.end(ACTIVITY_NOT_FOUND, str(message.get("message", "")))
                    return
                if len(self.follower.send_buffer) > MAX_UNSENT:
                    raise TimeoutError
                async with asyncio.timeout(SEND_TIMEOUT):
                    await self._send(message)
        except TimeoutError:
            await self.end(TOO_SLOW, _("Too slow. Connect again with ?after= the last log id that you have."))
        except _Disconnected:
            return
        except Exception:
            logger.exception("A websocket failed.")
            await self.end(FAILED, _("The server failed."))

    async def _send(self, message: Message) -> None:
        self._seq += 1
        text = messages.to_frame(message if self._sees_internals else messages.redacted(message), self._seq)
        if self._is_closing:
            return  # after a close, an ASGI server takes no message
        try:
            await self.send(text_data=text)
        except Exception as error:  # the exception depends on the ASGI server
            raise _Disconnected from error

    def _is_last(self, message: Message) -> bool:
        """Return whether the socket is to be closed in place of this message."""
        return False

    async def _recheck(self) -> None:
        failed = 0
        while not self._is_closing:
            await asyncio.sleep(RECHECK_INTERVAL)
            try:
                user = await self.read(auth.authenticate, self.scope)
                await self.check(user)
                self._sees_internals = await self.read(auth.sees_internals, user)
                self.follower.update_user(user)
                await self._unfollow_invisible(user)
                failed = 0
            except Refused as refusal:
                await self.end(refusal.close_code, str(refusal))
            except DatabaseUnavailable:
                # Meanwhile nothing is sent from the database either.
                failed += 1
                logger.warning("Could not check the permissions of a websocket.", exc_info=True)
                if failed >= MAX_FAILED_CHECKS:
                    await self.end(FAILED, _("Your permissions cannot be checked at present."))
            except Exception:
                logger.exception("Could not check the permissions of a websocket; it is closed.")
                await self.end(FAILED, _("Your permissions cannot be checked."))

    async def _unfollow_invisible(self, user: User) -> None:
        followed = self.follower.activities
        for agent_id in set(followed) - await self.read(auth.filter_visible, user, followed):
            await self.follower.unfollow(agent_id)
            self.follower.send_buffer.put(messages.failure("not_found", messages.not_found_text(agent_id)))

    # From the client

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer a message with `done` or `error`; close with 4400 if it violates the protocol."""
        if self._is_closing:
            return
        if not self._rate_limit.take():
            await self.end(UNREADABLE, _("Too many messages."))
            return
        try:
            command = parse(text_data)
            if command is not None:
                await self._execute(command)
        except Unreadable as error:
            await self.end(UNREADABLE, str(error))
        except Invalid as error:
            self.follower.send_buffer.put(messages.failure("invalid", str(error), error.request))
        except Exception:
            # For example an unavailable database, which the socket and its subscriptions may survive.
            logger.exception("Could not execute a command of a websocket.")
            text = _("The server could not execute the command; try again.")
            self.follower.send_buffer.put(messages.failure("failed", text))

    async def _execute(self, command: Command) -> None:
        try:
            user = await self.read(auth.authenticate, self.scope)
            if command.name in ACTIONS:
                await self.read(auth.run_action, user, command.agent_ids[0], ACTIONS[command.name])
            elif command.name == "subscribe":
                await self._subscribe(user, command)
            else:
                for agent_id in command.agent_ids:
                    await self.follower.unfollow(agent_id)
        except Refused as refusal:
            if refusal.close_code == auth.NOT_SIGNED_IN:
                await self.end(refusal.close_code, str(refusal))
                return
            self.follower.send_buffer.put(messages.failure(refusal.code, str(refusal), command.request))
        else:
            self.follower.send_buffer.put(messages.done(command.request))

    async def _subscribe(self, user: User, command: Command) -> None:
        """Follow all activities of the command that can be followed; raise `Refused` for the first of the others."""
        new = set(command.agent_ids) - set(self.follower.activities)
        if len(self.follower.activities) + len(new) > MAX_IDS:
            text = _("A socket follows at most %(maximum)d activities.")
            raise Refused(FORBIDDEN, "too_many", text % {"maximum": MAX_IDS})
        refusal: Refused | None = None
        for agent_id in command.agent_ids:
            try:
                await self.read(auth.check_activity, user, agent_id, Permission.VIEW)
                await self.follower.follow_activity(agent_id, command.after.get(agent_id))
            except Refused as error:
                refusal = refusal or error
            except ActivityNotFound as error:
                refusal = refusal or Refused(ACTIVITY_NOT_FOUND, "not_found", str(error))
        if refusal is not None:
            raise refusal


class FeedConsumer(_BaseConsumer):
    """The consumer of `ws/agents/activities/`: the feed of the user's audience."""

    audience = ""

    async def follow(self, user: User) -> None:
        """Follow the feed, starting with a snapshot of what is visible to `user`."""
        self.audience = await self.read(auth.get_audience, user)
        await self.follower.follow_feed(self.audience, user)

    async def check(self, user: User) -> None:
        """Raise `Refused` if the user has lost the feed or has another feed now."""
        if await self.read(auth.get_audience, user) != self.audience:
            raise Refused(FORBIDDEN, "forbidden", _("Your feed has changed; connect again."))


class ActivityConsumer(_BaseConsumer):
    """The consumer of `ws/agents/activities/{agent_id}/`, with `?after=` and `?stream_after=`."""

    @property
    def agent_id(self) -> UUID:
        """The activity in the path."""
        agent_id: UUID = self.scope["url_route"]["kwargs"]["agent_id"]
        return agent_id

    async def follow(self, user: User) -> None:
        """Follow the activity, starting with a snapshot with the log lines that the client does not have."""
        after_text, stream_after = self._parameter("after"), self._parameter("stream_after")
        after = None if after_text is None else log_id(after_text)
        if stream_after is not None and not is_stream_id(stream_after):
            raise Invalid(_("%(value)r is not a position in a stream.") % {"value": stream_after[:50]}, None)
        await self.read(auth.check_activity, user, self.agent_id, Permission.VIEW)
        await self.follower.follow_activity(self.agent_id, after, stream_after)

    def _parameter(self, name: str) -> str | None:
        """Return a query parameter. Raises `Invalid` if it is given more than once."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin1"), keep_blank_values=True)
        values = query.get(name, [])
        if len(values) > 1:
            text = _("Pass one value of %(name)r, not %(number)d.")
            raise Invalid(text % {"name": name, "number": len(values)}, None)
        return values[0] if values else None

    async def check(self, user: User) -> None:
        """Raise `Refused` if the user may no longer see the activity."""
        await self.read(auth.check_activity, user, self.agent_id, Permission.VIEW)

    def _is_last(self, message: Message) -> bool:
        return message["type"] == "error" and message.get("agent_id") == str(self.agent_id)


def _short(reason: str) -> str:
    """Return the part of `reason` that fits into a close frame: 123 bytes (RFC 6455, section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
