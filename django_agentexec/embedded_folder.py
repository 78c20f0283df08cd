"""The folder of the embedded server: its safety checks, its file locks and the path of the server's socket."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from .exceptions import EmbeddedServerError

MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS, with a final zero
SOCKET_FILE = "socket"  # file with the path of the running server's socket


def embedded_dir() -> Path:
    """Return the server's folder: EMBEDDED_DIR, or else `.agentexec` in BASE_DIR or the working directory."""
    from django.conf import settings

    from .conf import conf

    if conf.EMBEDDED_DIR:
        return Path(conf.EMBEDDED_DIR).resolve()
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()).resolve() / ".agentexec"


def socket_path(folder: Path) -> Path:
    """Return the path of the socket of the server of `folder`, as recorded at its start.

    Without a running server, return the path for a start: in the folder or, if its path is too long for a socket, in a
    private folder for temporary files. Raises `EmbeddedServerError` if that folder belongs to another user or its path
    is too long.
    """
    return _recorded_socket_path(folder) or _new_socket_path(folder)


def record_socket_path(folder: Path, path: Path) -> None:
    """Record the socket of the server that is about to start, for other processes."""
    new = folder / f"{SOCKET_FILE}.new"
    new.write_text(str(path), encoding="utf-8")
    new.replace(folder / SOCKET_FILE)


def _recorded_socket_path(folder: Path) -> Path | None:
    record = folder / SOCKET_FILE
    if not record.exists():
        return None  # no server yet, or the server of a release without this file
    # In this order: while a guardian is running, it manages the server's lock.
    if not _is_held(folder / "guardian.lock") and not _is_held(folder / "server.lock"):
        return None
    recorded = Path(record.read_text(encoding="utf-8"))
    if recorded.parent != folder:
        _check_private(recorded.parent)
    return recorded


def _new_socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if _fits(path):
        return path
    private = Path(tempfile.gettempdir()) / f"agentexec-{os.getuid()}"
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    path = private / f"{digest}.sock"
    if not _fits(path):
        raise EmbeddedServerError(
            f"Neither {folder} nor {private} is short enough for a unix socket ({MAX_SOCKET_PATH} bytes). "
            "Set AGENTEXEC['EMBEDDED_DIR'] to a shorter path."
        )
    make_private_folder(private)
    return path


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def make_private_folder(folder: Path) -> None:
    """Create `folder` for this user only; raise `EmbeddedServerError` if others own it or may write to it."""
    if folder.exists() and not folder.is_dir():
        raise EmbeddedServerError(
            f"{folder} is not a folder. Remove it, or set AGENTEXEC['EMBEDDED_DIR'] to another path."
        )
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise EmbeddedServerError(
            f"Cannot create {folder} for the embedded server ({error.strerror}). "
            "Set AGENTEXEC['EMBEDDED_DIR'] to a writable folder."
        ) from error
    else:
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    _check_private(folder)


def _check_private(folder: Path) -> None:
    """Raise `EmbeddedServerError` for a folder that others own or may write to."""
    try:
        status = folder.lstat()
    except FileNotFoundError as error:
        raise EmbeddedServerError(
            f"The folder {folder} of the embedded server's socket was removed. Kill the server (its process id is "
            "in the file server.pid of its folder), and start again."
        ) from error
    writable_by_others = stat.S_IMODE(status.st_mode) & 0o022
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or writable_by_others:
        raise EmbeddedServerError(
            f"{folder} must be a folder that belongs to you and that no other user can write to. "
            f"Remove it, or run: chmod 700 {folder}"
        )


def lock(path: Path, kind: int) -> int:
    """Open `path` and lock it (`fcntl.LOCK_EX` or `LOCK_SH`), waiting without a limit."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(path: Path) -> int | None:
    """Open `path` and lock it exclusively; return None if another process holds the lock."""
    try:
        return lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _is_held(path: Path) -> bool:
    """Return whether a process holds the lock."""
    descriptor = try_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None
