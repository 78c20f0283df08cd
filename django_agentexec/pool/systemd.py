"""Notifications to the service manager (systemd's `Type=notify` and `WatchdogSec=`).

The protocol is a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). Without systemd nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time

logger = logging.getLogger(__name__)


class ServiceManager:
    """The connection of a pool to its service manager; without a service manager it does nothing."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # the abstract namespace
            self._address = "\0" + self._address[1:]
        self._watchdog_interval = _watchdog_interval()
        self._next_watchdog = 0.0
        self._is_ready = False

    def ready(self, status: str) -> None:
        """Report once that the pool is ready; `systemctl status` shows `status`."""
        if not self._is_ready:
            self._is_ready = True
            self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Report that the pool drains."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Reset the watchdog, at most once per half of its timeout; call it in each iteration of the main loop."""
        now = time.monotonic()
        if self._watchdog_interval and now >= self._next_watchdog:
            self._next_watchdog = now + self._watchdog_interval
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.connect(self._address)
                connection.sendall(message.encode())
        except OSError as error:
            logger.warning("The service manager could not be notified: %s", error)


def _watchdog_interval() -> float:
    """Return half of the watchdog's timeout in seconds, or 0 if it does not watch this process."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or pid not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 2e6
