"""The programs in C, compiled when they are needed: the load client, and the limit."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).with_name("native")
_PROGRAMS = {"client": ("client.c", "crowd.c", "parse.c"), "limit": ("limit.c",)}
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


class NoCompiler(Exception):
    """There is no C compiler, so nothing can be measured that needs the load client."""

    def __init__(self) -> None:
        super().__init__(
            "There is no C compiler: what viewers receive cannot be measured without the load "
            "client. Install one (Debian, Ubuntu: apt install gcc libc6-dev), or name it in CC."
        )


@functools.cache
def program(name: str) -> Path:
    """A compiled program.

    Args:
        name: client or limit.

    Raises:
        NoCompiler: There is no C compiler.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler
    target = _folder() / name
    sources = [str(SOURCES / source) for source in _PROGRAMS[name]]
    subprocess.run([*compiler.split(), *_FLAGS, "-o", str(target), *sources], check=True)
    return target


@functools.cache
def _folder() -> Path:
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="livejobs-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
