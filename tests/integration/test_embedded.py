"""The embedded Valkey as `livejobs up` runs it."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from livejobs_server import embedded
from livejobs_server.data_dir import DataDir, DataDirInUse, DataDirUnusable, Running, find_running
from livejobs_server.supervisor import ChildFailed, Supervisor

PASSWORD = "not-a-secret-only-a-test"


def ignore(name: str, line: str) -> None:
    """Takes the output of children."""


async def test_valkey_keeps_queued_tasks_across_a_restart(tmp_path: Path) -> None:
    for seen in ([], [b"task"]):
        port = embedded.free_port()
        async with Supervisor(ignore) as supervisor:
            await supervisor.start(embedded.valkey_program(tmp_path, PASSWORD, port))
            with Redis.from_url(embedded.valkey_url(PASSWORD, port)) as client:
                assert client.lrange("celery", 0, -1) == seen
                client.rpush("celery", "task")


async def test_valkey_wants_its_password_and_keeps_it_private(tmp_path: Path) -> None:
    port = embedded.free_port()
    async with Supervisor(ignore) as supervisor:
        await supervisor.start(embedded.valkey_program(tmp_path, PASSWORD, port))
        with (
            Redis(embedded.HOST, port, retry=Retry(NoBackoff(), 0)) as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.ping()
    mode = stat.S_IMODE((tmp_path / "valkey.conf").stat().st_mode)
    assert mode == 0o600


async def test_valkey_works_in_a_folder_with_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'with "quotes", spaces # and é'
    port = embedded.free_port()
    async with Supervisor(ignore) as supervisor:
        await supervisor.start(embedded.valkey_program(folder, PASSWORD, port))
        with Redis.from_url(embedded.valkey_url(PASSWORD, port)) as client:
            assert client.config_get("dir") == {"dir": str(folder)}
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


async def test_valkey_on_a_taken_port_fails_and_says_why(tmp_path: Path) -> None:
    port = embedded.free_port()
    async with Supervisor(ignore) as supervisor:
        await supervisor.start(embedded.valkey_program(tmp_path / "a", PASSWORD, port))
        with pytest.raises(ChildFailed, match="valkey ended") as raised:
            await supervisor.start(embedded.valkey_program(tmp_path / "b", "other", port))
    assert "in use" in "\n".join(raised.value.last_lines)


@pytest.mark.parametrize(
    "make_url",
    [
        lambda: f"redis://127.0.0.1:{embedded.free_port()}/0",
        lambda: "nonsense://127.0.0.1",
        lambda: "redis://127.0.0.1:notaport/0",
    ],
)
async def test_redis_that_does_not_answer_is_told_why(
    make_url: Callable[[], str],
) -> None:
    assert await embedded.why_silent(make_url())


async def test_data_dir_is_locked_against_a_second_up(tmp_path: Path) -> None:
    async with DataDir(tmp_path).lock(print):
        with pytest.raises(DataDirInUse, match=r"Another `livejobs up` \(process"):
            await DataDir(tmp_path).lock(print).__aenter__()
    async with DataDir(tmp_path).lock(print):
        pass


LOCKED_BY_A_GUARDIAN = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, sys.argv[2].encode())
print("locked", flush=True)
time.sleep(0.5)
"""


@pytest.fixture
def guardian(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Holds the lock for half a second, on behalf of an `up` that has died."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    command = [sys.executable, "-c", LOCKED_BY_A_GUARDIAN, str(tmp_path / "up.lock"), str(gone.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process


async def test_data_dir_waits_for_what_a_killed_up_left(
    tmp_path: Path, guardian: subprocess.Popen[bytes]
) -> None:
    told: list[str] = []
    async with DataDir(tmp_path).lock(told.append):
        assert guardian.wait() == 0
    assert len(told) == 1


def test_data_dir_keeps_secrets_for_its_owner_only(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "data")
    secret = data_dir.secret("secret")
    assert len(secret) == 64
    assert DataDir(tmp_path / "data").secret("secret") == secret
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_data_dir_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(DataDirUnusable, match="choose another by --data-dir"):
        DataDir(tmp_path / "file" / "data")


def test_note_of_an_up_that_has_died_is_not_believed(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    data_dir.note_running(Running(gone.pid, "http://h", "redis://r", "sqlite:///d"))
    assert find_running(tmp_path) is None
    data_dir.forget_running()
    assert find_running(tmp_path) is None
