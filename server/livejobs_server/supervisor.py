"""Child processes of `livejobs up`: started, watched, their output passed on, stopped in order.

Each child leads a process group of its own, so a terminal's Ctrl-C reaches only `up`, which then
stops them in order; and a guardian process stops them if `up` is killed (see `guardian`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from livejobs.errors import LivejobsError

T = TypeVar("T")

READY_POLL_SECONDS = 0.1
OUTPUT_DRAIN_SECONDS = 1.0
KILL_SECONDS = 5.0
LAST_LINES = 15
MAX_LINE_BYTES = 16 * 1024

Write = Callable[[str, str], None]
"""Takes the name of a child and a line of its output."""

# The shell tells the guardian its process id, which the program then keeps.
_REGISTER_AND_RUN = 'echo "$$" >&0 && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs.

    Attributes:
        name: What people call it, e.g. worker.
        command: The program and its arguments.
        environment: All of its environment.
        ready: Asked again and again until it answers True; None: at once.
        ready_line: A line of the output that says so instead.
        ready_within: Longest time until it is ready, in seconds.
        stops: Signals to stop it by, each with the seconds it has before the next; then SIGKILL.
        quiet: Lines of output that tell nobody anything.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_line: re.Pattern[str] | None = None
    ready_within: float = 60.0
    stops: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),)
    quiet: re.Pattern[str] | None = None


class ChildFailed(LivejobsError):
    """A child ended that should run, or did not become ready.

    Attributes:
        name: The child.
        returncode: Its exit code, minus the signal's number where one killed it; None: it runs.
        last_lines: The end of its output.
    """

    def __init__(
        self, name: str, what: str, returncode: int | None, last_lines: Sequence[str]
    ) -> None:
        self.name = name
        self.returncode = returncode
        self.last_lines = tuple(last_lines)
        super().__init__(f"{name} {what}.")


def ending(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


class Child:
    """A running program.

    Attributes:
        program: What it runs.
        pid: Its process id, and that of its process group.
        last_lines: The end of its output.
    """

    def __init__(
        self, program: Program, process: asyncio.subprocess.Process, output: int, write: Write
    ) -> None:
        self.program = program
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = process
        self._write = write
        self._said_ready = asyncio.Event()
        self._output = asyncio.create_task(self._pass_on_output(output))
        self.exited = asyncio.create_task(process.wait())

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    def failed(self) -> ChildFailed:
        """What to raise when it has ended."""
        code = self._process.returncode
        what = ending(code) if code is not None else "is not answering"
        return ChildFailed(self.name, what, code, self.last_lines)

    async def wait_ready(self) -> None:
        """Return when the program does its work.

        Raises:
            ChildFailed: It is not ready in time. That it ended is for others to see.
        """
        program = self.program
        try:
            async with asyncio.timeout(program.ready_within):
                if program.ready_line:
                    await self._said_ready.wait()
                while program.ready and not await program.ready():  # noqa: ASYNC110 - it polls
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            what = f"was not ready within {program.ready_within:g} s"
            raise ChildFailed(self.name, what, None, self.last_lines) from None

    async def stop(self) -> None:
        """Stop it by each of its signals in turn, then by SIGKILL, with all that it started."""
        for number, grace in self.program.stops:
            if self.exited.done():
                break
            self.signal(number)
            await asyncio.wait({self.exited}, timeout=grace)
        self.kill()
        await asyncio.wait({self.exited}, timeout=KILL_SECONDS)
        await self.drain()
        self._output.cancel()

    async def drain(self) -> None:
        """Wait until the output of an ended program has been passed on.

        A grandchild that left the group may hold the pipe open; it is not waited for.
        """
        await asyncio.wait({self._output}, timeout=OUTPUT_DRAIN_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself."""
        if self.exited.done():
            return
        # The process object's own `send_signal` looks first whether the program has ended, and may
        # thereby take its exit code away from asyncio, which then says 255.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the whole process group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _pass_on_output(self, output: int) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(output, "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await stream.read(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._take_line(line)
            if rest:
                self._take_line(rest)
        finally:
            transport.close()

    def _take_line(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        program = self.program
        if program.ready_line and program.ready_line.search(line):
            self._said_ready.set()
        if program.quiet and program.quiet.search(line):
            return
        if line.strip():
            self.last_lines.append(line)
        self._write(program.name, line)


class Supervisor:
    """Runs children until one fails or all are to stop; used as an async context manager.

    Leaving the context stops every child, the last one first.

    Args:
        write: Gets each line of the children's output.
        keep_open: File descriptors that the guardian keeps open while it ends children, like
            that of a lock which nobody else may take until they have ended.

    Attributes:
        children: All that were started, in that order.
        stopping: Whether they are being stopped.
    """

    def __init__(self, write: Write, keep_open: Sequence[int] = ()) -> None:
        self.children: list[Child] = []
        self._write = write
        self._keep_open = tuple(keep_open)
        self._failure: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._guardian: asyncio.subprocess.Process | None = None
        self._pipe = -1
        self.stopping = False

    async def __aenter__(self) -> Self:
        reading, self._pipe = os.pipe()
        self._guardian = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(__file__).with_name("guardian.py")),
            stdin=reading,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._keep_open,
            cwd="/",
        )
        os.close(reading)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, *programs: Program) -> list[Child]:
        """Start programs, in this order, and return when all of them are ready.

        Raises:
            ChildFailed: One of them, or a child started before, ended; or is not ready in time.
        """
        children = [await self._spawn(program) for program in programs]
        for child in children:
            await self.while_all_run(child.wait_ready())
        return children

    async def _spawn(self, program: Program) -> Child:
        # A pipe of our own: asyncio's would not let a process count as ended before all that it
        # started have closed theirs.
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _REGISTER_AND_RUN,
                "livejobs",
                *program.command,
                stdin=self._pipe,
                stdout=writing,
                stderr=writing,
                env=dict(program.environment),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child = Child(program, process, reading, self._write)
        self.children.append(child)
        child.exited.add_done_callback(lambda _: self._note_exit(child))
        return child

    async def failure(self) -> ChildFailed:
        """Wait until a child ends that should run, and say how."""
        child = await asyncio.shield(self._failure)
        # Its last words explain its end; they may still be on their way.
        await child.drain()
        return child.failed()

    async def stop(self) -> None:
        """Stop all children, the last one first, and the guardian."""
        self.stopping = True
        for child in reversed(self.children):
            await child.stop()
        if self._guardian is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, b"done\n")
            os.close(self._pipe)
            self._pipe = -1
            await self._guardian.wait()
            self._guardian = None

    def kill(self) -> None:
        """Kill all children at once."""
        self.stopping = True
        for child in self.children:
            child.kill()

    def _note_exit(self, child: Child) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"-%d\n" % child.pid)
        if not self.stopping and not self._failure.done():
            self._failure.set_result(child)

    async def while_all_run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` while all children run; it is cancelled when one ends.

        Raises:
            ChildFailed: A child ended that should run.
        """
        task = asyncio.create_task(work)
        failure = asyncio.create_task(self.failure())
        try:
            await asyncio.wait({task, failure}, return_when=asyncio.FIRST_COMPLETED)
            # Trouble that the work ran into may be but the consequence of a child's end.
            if self._failure.done():
                raise await failure
            return await task
        finally:
            task.cancel()
            failure.cancel()
            await asyncio.wait({task, failure})
