"""The supervisor with real child processes: ready, failing, stopped, orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from livejobs_server.supervisor import ChildFailed, Program, Supervisor
from tests.support.waiting import wait_until

Lines = list[tuple[str, str]]


def python(name: str, source: str, **options: object) -> Program:
    """A program in Python that says `ready` when it is."""
    options.setdefault("ready_line", re.compile("^ready$"))
    return Program(
        name=name,
        command=[sys.executable, "-u", "-c", textwrap.dedent(source)],
        environment=dict(os.environ),
        **options,  # type: ignore[arg-type]
    )


SLEEPER = """
    import time
    print("ready")
    time.sleep(60)
"""
STUBBORN = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready")
    time.sleep(60)
"""
WITH_GRANDCHILD = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print("grandchild", child.pid)
    print("ready")
    time.sleep(60)
"""


def collect() -> tuple[Lines, Callable[[str, str], None]]:
    lines: Lines = []
    return lines, lambda name, line: lines.append((name, line))


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return not Path("/proc/self").exists()
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def test_output_is_passed_on_line_by_line_with_the_name() -> None:
    lines, write = collect()
    program = python(
        "talker", 'print("a\\r")\nprint("\\u00e9")\nprint("ready")\nprint("end", end="")'
    )
    async with Supervisor(write) as supervisor:
        [child] = await supervisor.start(program)
        await child.exited
    assert lines == [("talker", text) for text in ("a", "\u00e9", "ready", "end")]


async def test_lines_without_an_end_are_cut() -> None:
    lines, write = collect()
    program = python("endless", 'print("ready")\nprint("x" * 100_000)')
    async with Supervisor(write) as supervisor:
        [child] = await supervisor.start(program)
        await child.exited
        await child.drain()
    assert sum(len(line) for _, line in lines) == 100_005
    assert len(lines) > 2


async def test_quiet_lines_are_left_out() -> None:
    lines, write = collect()
    program = python("p", 'print("noise 1")\nprint("ready")', quiet=re.compile("noise"))
    async with Supervisor(write) as supervisor:
        [child] = await supervisor.start(program)
        await child.exited
    assert lines == [("p", "ready")]


async def test_start_waits_until_the_program_is_ready() -> None:
    answers = iter([False, False, True])

    async def ready() -> bool:
        return next(answers)

    async with Supervisor(collect()[1]) as supervisor:
        await supervisor.start(python("p", SLEEPER, ready=ready))
        assert next(answers, "all asked") == "all asked"


async def test_program_that_is_never_ready_fails_in_time() -> None:
    program = python("p", "import time; time.sleep(60)", ready_within=0.3)
    async with Supervisor(collect()[1]) as supervisor:
        with pytest.raises(ChildFailed, match=r"^p was not ready within 0\.3 s"):
            await supervisor.start(program)
        pid = supervisor.children[0].pid
    assert not is_running(pid)


async def test_program_that_ends_while_starting_fails_with_its_last_words() -> None:
    async with Supervisor(collect()[1]) as supervisor:
        with pytest.raises(ChildFailed, match="exit code 3") as raised:
            await supervisor.start(python("p", 'import sys; print("no disk"); sys.exit(3)'))
    assert raised.value.last_lines == ("no disk",)


async def test_program_that_does_not_exist_fails() -> None:
    program = Program("ghost", ["/nonexistent/program"], {}, ready_line=re.compile("ready"))
    async with Supervisor(collect()[1]) as supervisor:
        with pytest.raises(ChildFailed, match="ghost ended with exit code 127"):
            await supervisor.start(program)


async def test_child_that_dies_later_is_told() -> None:
    async with Supervisor(collect()[1]) as supervisor:
        await supervisor.start(python("first", SLEEPER))
        [second] = await supervisor.start(python("second", SLEEPER))
        os.kill(second.pid, signal.SIGKILL)
        failed = await asyncio.wait_for(supervisor.failure(), 5)
    assert str(failed) == "second was killed by SIGKILL."


async def test_child_whose_grandchild_lives_on_is_seen_to_die() -> None:
    async with Supervisor(collect()[1]) as supervisor:
        [child] = await supervisor.start(python("p", WITH_GRANDCHILD))
        os.kill(child.pid, signal.SIGKILL)
        failed = await asyncio.wait_for(supervisor.failure(), 5)
    assert failed.returncode == -signal.SIGKILL


async def test_start_fails_when_a_child_started_before_dies(tmp_path: Path) -> None:
    begun = tmp_path / "second"
    first = f"""
        import os, time
        print("ready")
        while not os.path.exists({str(begun)!r}):
            time.sleep(0.01)
    """
    second = f"""
        import time
        open({str(begun)!r}, "x").close()
        time.sleep(60)
    """
    async with Supervisor(collect()[1]) as supervisor:
        await supervisor.start(python("first", first))
        with pytest.raises(ChildFailed, match="first ended"):
            await supervisor.start(python("second", second))


async def test_children_stop_in_reverse_order() -> None:
    names, ended = ["one", "two", "three"], list[str]()

    def note(name: str) -> Callable[[asyncio.Task[int]], None]:
        return lambda _: ended.append(name)

    async with Supervisor(collect()[1]) as supervisor:
        for child in await supervisor.start(*(python(name, SLEEPER) for name in names)):
            child.exited.add_done_callback(note(child.name))
    assert ended == ["three", "two", "one"]


async def test_stubborn_child_is_killed_after_its_signals() -> None:
    stops = ((signal.SIGTERM, 0.2),)
    async with Supervisor(collect()[1]) as supervisor:
        [child] = await supervisor.start(python("p", STUBBORN, stops=stops))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert child.exited.result() == -signal.SIGKILL


async def test_kill_ends_all_at_once() -> None:
    async with Supervisor(collect()[1]) as supervisor:
        children = await supervisor.start(*(python(name, STUBBORN) for name in ("one", "two")))
        began = time.monotonic()
        supervisor.kill()
    assert time.monotonic() - began < 5
    assert [child.exited.result() for child in children] == [-signal.SIGKILL] * 2


async def test_stop_takes_grandchildren_along() -> None:
    lines, write = collect()
    async with Supervisor(write) as supervisor:
        await supervisor.start(python("p", WITH_GRANDCHILD))
        grandchild = int(lines[0][1].split()[1])
        assert is_running(grandchild)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    wait_until(lambda: not is_running(grandchild), description="the grandchild has ended")


ORPHANING = f"""
import asyncio, os, re, sys
from livejobs_server.supervisor import Program, Supervisor

async def main():
    async with Supervisor(lambda name, line: print(name, line, flush=True)) as supervisor:
        for name, source in (("a", {textwrap.dedent(SLEEPER)!r}),
                             ("b", {textwrap.dedent(WITH_GRANDCHILD)!r})):
            [child] = await supervisor.start(Program(
                name, [sys.executable, "-u", "-c", source], dict(os.environ),
                ready_line=re.compile("^ready$")))
            print("child", child.pid, flush=True)
        print("all ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_no_orphans_stay_when_the_supervisor_itself_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANING], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids: list[int] = []
        for line in process.stdout:
            if match := re.search(r"child (\d+)", line):
                pids.append(int(match[1]))
            if line.startswith("all ready"):
                break
        assert len(pids) == 3
        assert all(map(is_running, pids))
        process.kill()
    wait_until(lambda: not any(map(is_running, pids)), description="the guardian ended them all")
