"""What is measured: livejobs, the limit, and what people use instead, each as a real process."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from livejobs.entries import channel

from ..support.command_line import COMMAND
from ..support.servers import free_port
from .machine import file_limit
from .native import program
from .processes import on_cores, server_process
from .stage import Stage
from .viewers import Target, Viewers, viewers

WS: Final = "ws"
SSE: Final = "sse"
LIVEJOBS: Final = "livejobs"
LIMIT: Final = "C loop (the limit)"
NCHAN: Final = "nginx + nchan"

_PEERS = Path(__file__).with_name("peers")
_NODE_WS = Path(__file__).parents[2] / "client-js" / "node_modules" / "ws"
_NCHAN_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules")


@dataclass(frozen=True)
class Running:
    """A server that listens.

    Attributes:
        pid: Its process; that of its children counts too.
        target: What a viewer asks for.
        token: Credentials for it, None where it asks for none.
        greets: It tells a new viewer something at once.
    """

    pid: int
    target: Target
    token: str | None = None
    greets: bool = True


Start = Callable[[Stage, str], contextlib.AbstractContextManager[Running]]


@dataclass(frozen=True)
class Contender:
    """A server that can be measured.

    Attributes:
        name: In the table.
        transport: WS or SSE.
        start: Runs it for the viewers of a job.
        missing: Why it cannot be measured here; "" where it can.
    """

    name: str
    transport: str
    start: Start = field(repr=False)
    missing: str = ""


@contextlib.contextmanager
def livejobs_server(stage: Stage, workers: int = 1) -> Iterator[tuple[int, int]]:
    """`livejobs server`; yields process id and port."""
    port = free_port()
    command = [*COMMAND, "server", "--port", str(port)]
    if workers > 1:
        command += ["--workers", str(workers)]
    env = {**stage.env, **_without_limits()}
    with server_process(command, port, stage.cores.server, env) as pid:
        yield pid, port


def job_path(transport: str, job_id: str) -> str:
    """What a viewer of one job asks livejobs for."""
    return f"/v1/jobs/{job_id}/{'ws' if transport == WS else 'events'}"


def _without_limits() -> dict[str, str]:
    """All viewers come from seven addresses with one token: no limit on those is meant for that."""
    return {}


@contextlib.contextmanager
def _livejobs(transport: str, stage: Stage, job_id: str) -> Iterator[Running]:
    with livejobs_server(stage) as (pid, port):
        yield Running(pid, Target(port, job_path(transport, job_id)), stage.token())


def _peer_env(stage: Stage, job_id: str) -> dict[str, str]:
    return {
        **stage.env,
        "BENCH_REDIS_PORT": str(stage.redis_port),
        "BENCH_CHANNEL": channel(job_id),
        "NODE_ENV": "production",
    }


@contextlib.contextmanager
def _limit(transport: str, stage: Stage, job_id: str) -> Iterator[Running]:
    port = free_port()
    command = [str(program("limit")), transport, str(port), str(stage.redis_port), channel(job_id)]
    with server_process(command, port, stage.cores.server, {}) as pid:
        yield Running(pid, Target(port, "/"))


@contextlib.contextmanager
def _uvicorn(module: str, path: str, stage: Stage, job_id: str) -> Iterator[Running]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", f"tests.bench.peers.{module}:app"),
        *("--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
    ]
    with server_process(command, port, stage.cores.server, _peer_env(stage, job_id)) as pid:
        yield Running(pid, Target(port, path))


@contextlib.contextmanager
def _node(stage: Stage, job_id: str) -> Iterator[Running]:
    port = free_port()
    command = ["node", str(_PEERS / "ws_send.mjs"), str(_NODE_WS), str(port)]
    with server_process(command, port, stage.cores.server, _peer_env(stage, job_id)) as pid:
        yield Running(pid, Target(port, "/"))


@contextlib.contextmanager
def _nchan(stage: Stage, job_id: str) -> Iterator[Running]:
    port, files = free_port(), file_limit()
    with tempfile.TemporaryDirectory(prefix="livejobs-nchan-") as folder:
        text = (_PEERS / "nchan.conf").read_text("utf-8")
        config = Path(folder) / "nginx.conf"
        fields = {"module": _nchan_module(), "folder": folder, "port": port, "files": files}
        config.write_text(text.format(**fields, connections=files - 100), "utf-8")
        env = _peer_env(stage, job_id)
        command = [_nginx(), "-c", str(config), "-p", folder]
        feed = [sys.executable, "-m", "tests.bench.peers.nchan_feed"]
        with (
            server_process(command, port, stage.cores.server, env) as pid,
            # It does not listen on a port; what it waits for is the server, which does.
            server_process(
                [*feed, f"http://127.0.0.1:{port}/publish"], port, stage.cores.load, env
            ),
        ):
            yield Running(pid, Target(port, "/subscribe"), greets=False)


def _nginx() -> str:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""


def _nchan_module() -> str:
    given = os.environ.get("NCHAN_MODULE", "")
    places = [given, *(f"{folder}/ngx_nchan_module.so" for folder in _NCHAN_MODULES)]
    return next((place for place in places if place and Path(place).is_file()), "")


def contenders() -> list[Contender]:
    """All, the limit first, then livejobs."""
    no_node = "" if shutil.which("node") else "there is no node"
    if not no_node and not _NODE_WS.is_dir():
        no_node = "npm --prefix client-js ci installs it"
    no_nchan = "" if _nginx() and _nchan_module() else "nginx with nchan is not installed"
    found = [Contender(LIMIT, way, partial(_limit, way)) for way in (WS, SSE)]
    found += [Contender(LIVEJOBS, way, partial(_livejobs, way)) for way in (WS, SSE)]
    queue = "FastAPI, queue per socket"
    events = "sse-starlette, queue per viewer"
    return [
        *found,
        Contender("Node ws, send() per client", WS, _node, no_node),
        Contender(NCHAN, WS, _nchan, no_nchan),
        Contender(NCHAN, SSE, _nchan, no_nchan),
        Contender(queue, WS, partial(_uvicorn, "fastapi_queue", "/ws")),
        Contender(events, SSE, partial(_uvicorn, "sse_starlette_queue", "/events")),
    ]


@contextlib.contextmanager
def watched(
    stage: Stage, contender: Contender, job_id: str, at_once: int = 500
) -> Iterator[tuple[Running, Viewers]]:
    """A running contender, and a load client that asks for its job."""
    with contender.start(stage, job_id) as running:  # noqa: SIM117 - the target comes from it
        with viewers(
            contender.transport,
            [running.target],
            stage.cores,
            token=running.token,
            at_once=at_once,
            ready_when_open=not running.greets,
        ) as crowd:
            yield running, crowd


__all__ = [
    "LIMIT", "LIVEJOBS", "NCHAN", "SSE", "WS", "Contender", "Running", "contenders", "job_path",
    "livejobs_server", "on_cores", "watched",
]  # fmt: skip
