"""The embedded server, used by real processes that come, go, and are killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_agentexec import EmbeddedServerError, embedded

pytestmark = pytest.mark.e2e

PATIENCE = 20.0  # seconds; several times what the slowest step takes on a small machine

# Joins, says where the server is, and stays until its standard input ends. A line makes it join again.
USER = """
import sys
from pathlib import Path
from django.conf import settings
settings.configure(DEBUG=True, AGENTEXEC={"EMBEDDED": True, "EMBEDDED_DIR": sys.argv[1]})
from django_agentexec.embedded import ensure_server
print(ensure_server(), flush=True)
for _ in sys.stdin:
    print(ensure_server(), flush=True)
"""

# Joins, forks, and ends while its child stays.
FORKING_USER = USER.replace("for _ in", "import os\nif os.fork(): os._exit(0)\nfor _ in")


class User:
    """A process that uses the embedded server of a folder."""

    def __init__(self, folder: Path, code: str = USER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=Path(__file__).parents[2],
        )

    def socket(self) -> str:
        """Wait until it has joined, and return the path it was given."""
        assert self.process.stdout is not None
        path = self.process.stdout.readline().strip()
        assert path, "the user died before it had a server"
        return path

    def join_again(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return self.socket()

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=self.socket())

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


Join = Callable[..., User]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my project" / ".agentexec"


@pytest.fixture
def join(folder: Path) -> Iterator[Join]:
    users: list[User] = []
    folders: set[Path] = set()

    def start(at: Path = folder, code: str = USER) -> User:
        users.append(User(at, code))
        folders.add(at)
        return users[-1]

    yield start
    for user in users:
        with user.process:
            user.process.kill()
    for used in folders:
        wait_until(lambda used=used: not is_held(used / "guardian.lock"))  # type: ignore[misc]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_held(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def server_info(client: redis.Redis) -> dict[str, Any]:
    return client.info("server")


def guardian_pid(client: redis.Redis) -> int:
    status = Path(f"/proc/{server_info(client)['process_id']}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def kill_guardian(client: redis.Redis, folder: Path) -> None:
    os.kill(guardian_pid(client), signal.SIGKILL)
    wait_until(lambda: not is_held(folder / "guardian.lock"))


def wait_for_end(folder: Path) -> None:
    wait_until(lambda: not is_held(folder / "server.lock") and not is_held(folder / "guardian.lock"))


def test_the_first_user_starts_a_private_server_that_keeps_everything(join: Join, folder: Path) -> None:
    client = join().client()

    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("port") == {"port": "0"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_second_user_finds_the_server_of_the_first(join: Join) -> None:
    first, second = join().client(), join().client()

    assert server_info(first)["run_id"] == server_info(second)["run_id"]


def test_five_users_who_come_at_once_share_one_server(join: Join) -> None:
    users = [join() for _ in range(5)]

    assert len({server_info(user.client())["run_id"] for user in users}) == 1


def test_the_server_ends_with_its_last_user_and_comes_back_with_the_data(join: Join, folder: Path) -> None:
    first, second = join(), join()
    first.client().set("kept", "yes")
    run_id = server_info(second.client())["run_id"]

    first.leave()
    assert second.join_again()
    assert is_held(folder / "server.lock")
    second.leave()
    wait_for_end(folder)

    client = join().client()
    assert client.get("kept") == b"yes"
    assert server_info(client)["run_id"] != run_id


def test_a_newcomer_while_the_server_is_being_stopped_gets_a_server(join: Join, folder: Path) -> None:
    for _ in range(5):
        user = join()
        user.socket()
        user.leave()

    assert join().client().ping()


def test_a_killed_user_does_not_keep_the_server(join: Join, folder: Path) -> None:
    user = join()
    user.socket()

    user.kill()

    wait_for_end(folder)


def test_a_forked_child_keeps_the_server_of_its_parent(join: Join, folder: Path) -> None:
    parent = join(code=FORKING_USER)
    client = parent.client()
    parent.process.wait(PATIENCE)

    assert parent.join_again()
    assert client.ping()
    assert parent.process.stdin is not None
    parent.process.stdin.close()
    wait_for_end(folder)


def test_a_killed_server_is_started_again_with_its_data(join: Join) -> None:
    user = join()
    client = user.client()
    client.set("kept", "yes")

    os.kill(server_info(client)["process_id"], signal.SIGKILL)
    user.join_again()

    assert client.get("kept") == b"yes"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds the guardian in /proc")
def test_after_guardian_and_server_were_killed_the_next_user_starts_with_the_data(join: Join, folder: Path) -> None:
    user = join()
    client = user.client()
    client.set("kept", "yes")
    server = server_info(client)["process_id"]

    kill_guardian(client, folder)
    os.kill(server, signal.SIGKILL)
    user.kill()

    assert join().client().get("kept") == b"yes"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds the guardian in /proc")
def test_the_server_of_a_killed_guardian_is_adopted_and_ends_with_the_last_user(join: Join, folder: Path) -> None:
    first = join()
    client = first.client()
    run_id = server_info(client)["run_id"]
    kill_guardian(client, folder)

    second = join()
    assert server_info(second.client())["run_id"] == run_id

    first.leave()
    second.leave()
    wait_for_end(folder)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds the guardian in /proc")
def test_the_last_user_leaves_no_orphan_of_a_killed_guardian(join: Join, folder: Path) -> None:
    user = join()
    kill_guardian(user.client(), folder)

    user.leave()

    wait_for_end(folder)


def test_a_stale_socket_and_process_id_are_no_obstacle(join: Join, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)
    (folder / "valkey.sock").write_text("")
    (folder / "server.pid").write_text("1\n")

    assert join().client().ping()


def test_a_folder_with_a_long_path_has_its_socket_among_the_temporary_files(join: Join, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60) / ".agentexec"

    path = Path(join(deep).socket())

    assert path.parent == Path(tempfile.gettempdir()) / f"agentexec-{os.getuid()}"
    assert path.parent.stat().st_mode & 0o777 == 0o700


@contextmanager
def embedded_in(folder: Path, **settings: Any) -> Iterator[None]:
    values = {"EMBEDDED": True, "EMBEDDED_DIR": str(folder), **settings.pop("AGENTEXEC", {})}
    with override_settings(AGENTEXEC=values, **settings):
        yield


def test_production_refuses_it(folder: Path) -> None:
    with (
        embedded_in(folder, DEBUG=False),
        pytest.raises(EmbeddedServerError, match="EMBEDDED_IN_PRODUCTION"),
    ):
        embedded.ensure_server()

    assert not folder.exists()


def test_without_the_wheel_the_error_names_the_package_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with (
        embedded_in(folder, DEBUG=True),
        pytest.raises(EmbeddedServerError, match=r"django-agentexec\[embedded\]"),
    ):
        embedded.ensure_server()


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)

    with embedded_in(folder, DEBUG=True), pytest.raises(EmbeddedServerError, match="chmod 700"):
        embedded.ensure_server()


def test_a_server_that_cannot_read_its_data_is_an_error_that_shows_the_log(join: Join, folder: Path) -> None:
    user = join()
    user.client().set("kept", "yes")
    user.leave()
    wait_for_end(folder)
    for file in (folder / "appendonlydir").glob("*.manifest"):
        file.write_text("no manifest\n")

    broken = subprocess.run(
        [sys.executable, "-c", USER, str(folder)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=PATIENCE,
    )

    assert "EmbeddedServerError: The embedded server did not start." in broken.stderr
    assert "manifest" in broken.stderr


def test_embedded_dir_is_beside_manage_py_unless_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with override_settings(AGENTEXEC={}):
        assert embedded.embedded_dir() == tmp_path / ".agentexec"
    with override_settings(AGENTEXEC={}, BASE_DIR=tmp_path / "site"):
        assert embedded.embedded_dir() == tmp_path / "site" / ".agentexec"
    with override_settings(AGENTEXEC={"EMBEDDED_DIR": "data"}):
        assert embedded.embedded_dir() == tmp_path / "data"


def test_users_with_different_folders_for_temporary_files_share_the_server_of_a_long_path(
    join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60) / ".agentexec"
    with tempfile.TemporaryDirectory(dir="/tmp") as one, tempfile.TemporaryDirectory(dir="/tmp") as other:
        monkeypatch.setenv("TMPDIR", one)
        first = join(deep)
        path = first.socket()
        monkeypatch.setenv("TMPDIR", other)
        second = join(deep)

        assert Path(path).is_relative_to(one)
        assert second.socket() == path
        first.leave()
        assert second.join_again() == path

        kill_guardian(redis.Redis(unix_socket_path=path), deep)
        third = join(deep)
        assert third.socket() == path
        second.leave()
        third.leave()
        wait_for_end(deep)

        assert Path(join(deep).socket()).is_relative_to(other)


def test_a_removed_folder_of_the_socket_is_named(join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60) / ".agentexec"
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        user = join(deep)
        path = Path(user.socket())
        shutil.rmtree(path.parent)

        with embedded_in(deep, DEBUG=True), pytest.raises(EmbeddedServerError, match="was removed"):
            embedded.ensure_server()
        path.parent.mkdir(mode=0o700)
        user.leave()


# Runs with a limit on the size of files, which fails like a full disk does.
FULL = USER.replace("import sys\n", "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n", 1)


@pytest.mark.parametrize("exists", [False, True], ids=["new folder", "known folder"])
def test_a_full_disk_is_an_error_that_names_the_folder(folder: Path, exists: bool) -> None:
    if exists:
        folder.mkdir(mode=0o700, parents=True)

    failed = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=PATIENCE,
        cwd=Path(__file__).parents[2],
    )

    last = failed.stderr.strip().splitlines()[-1]
    assert "EmbeddedServerError" in last
    assert str(folder) in last
    assert "EMBEDDED_DIR" in last


@pytest.mark.parametrize("name", ["start.lock", "users.lock"])
def test_a_lock_that_cannot_be_opened_is_an_error_that_names_the_folder(folder: Path, name: str) -> None:
    (folder / name).mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)

    with embedded_in(folder, DEBUG=True), pytest.raises(EmbeddedServerError, match=f"Cannot use the folder.*{name}"):
        embedded.ensure_server()


def test_a_read_only_file_system_is_an_error_that_names_the_setting() -> None:
    for folder in (Path("/proc/agentexec"), Path("/dev/null")):
        with embedded_in(folder, DEBUG=True), pytest.raises(EmbeddedServerError, match="EMBEDDED_DIR"):
            embedded.ensure_server()
