"""The folder of the embedded server: whether it is safe to use, its locks, and where its server listens."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from .exceptions import EmbeddedServerError

MAX_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux and 104 on macOS, with a final zero
SOCKET_NOTE = "socket"  # file with the path of the running server's socket


def embedded_dir() -> Path:
    """Return the server's folder: EMBEDDED_DIR, else `.agentexec` in BASE_DIR or the working directory."""
    from django.conf import settings

    from .conf import conf

    if conf.EMBEDDED_DIR:
        return Path(conf.EMBEDDED_DIR).resolve()
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()).resolve() / ".agentexec"


def socket_path(folder: Path) -> Path:
    """Return where the server of `folder` listens: where it was started, whatever this process's TMPDIR is.

    Without a server, this process decides: in the folder, or in a private folder for temporary files, which is for
    folders whose path is too long for a socket. Raises `EmbeddedServerError` if that folder belongs to somebody else,
    or is too long itself.
    """
    return _noted_socket_path(folder) or _own_socket_path(folder)


def note_socket_path(folder: Path, path: Path) -> None:
    """Note for other processes where the server listens that is about to be started."""
    new = folder / f"{SOCKET_NOTE}.new"
    new.write_text(str(path), encoding="utf-8")
    new.replace(folder / SOCKET_NOTE)


def _noted_socket_path(folder: Path) -> Path | None:
    note = folder / SOCKET_NOTE
    if not note.exists():
        return None  # no server yet, or one of a release that made no note
    # In this order: the server's lock is the guardian's business as long as there is one.
    if not _is_held(folder / "guardian.lock") and not _is_held(folder / "server.lock"):
        return None
    noted = Path(note.read_text(encoding="utf-8"))
    if noted.parent != folder:
        _check_private(noted.parent)
    return noted


def _own_socket_path(folder: Path) -> Path:
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
    """Create `folder` for this user alone; refuse one that others own or may write to."""
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
            "Set AGENTEXEC['EMBEDDED_DIR'] to a folder that can be written to."
        ) from error
    else:
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    _check_private(folder)


def _check_private(folder: Path) -> None:
    """Refuse a folder that others own or may write to."""
    try:
        found = folder.lstat()
    except FileNotFoundError as error:
        raise EmbeddedServerError(
            f"{folder}, where the embedded server listens, was removed. End the server (its process id is in the file "
            "server.pid of its folder), and start again."
        ) from error
    writable_by_others = stat.S_IMODE(found.st_mode) & 0o022
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or writable_by_others:
        raise EmbeddedServerError(
            f"{folder} must be a folder that belongs to you and that nobody else can write to. "
            f"Remove it, or run: chmod 700 {folder}"
        )


def lock(path: Path, kind: int) -> int:
    """Open `path` and lock it (`fcntl.LOCK_EX` or `LOCK_SH`), waiting as long as it takes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(path: Path) -> int | None:
    """Open `path` and lock it exclusively; return None if somebody else holds the lock."""
    try:
        return lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _is_held(path: Path) -> bool:
    """Whether somebody holds the lock."""
    descriptor = try_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None
