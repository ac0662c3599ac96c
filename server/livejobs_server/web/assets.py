"""What browsers load: the pages' scripts and styles, and the modules of the client.

All of it is small, so it is read once and kept. The pages load it under a path that names its
digest, so that a browser asks for each file once a release. Other people's pages import the client
from ``/client.js``, whose address stays the same: there a browser asks whether it has changed.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ..problems import ApiProblem

STATIC: Final = Path(__file__).with_name("static")
_CLIENT_OF_WHEEL: Final = Path(__file__).with_name("client")
_CLIENT_OF_CLONE: Final = Path(__file__).parents[3] / "client-js" / "src"

CLIENT: Final = "client/"
"""Where the client's modules lie among the assets."""
ENTRY: Final = "client.js"
_ENTRY_TEXT: Final = f'export * from "./{CLIENT}index.js";\n'.encode()

FOREVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"

_MEDIA_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMPORT: Final = re.compile(
    r'^(?:import|export|\})[^"\n]*? from "([^"]+)";|^import "([^"]+)";', re.MULTILINE
)
_LEAST_TO_COMPRESS: Final = 1024  # bytes


class Asset(NamedTuple):
    """A file as it is sent.

    Attributes:
        body: Its bytes.
        packed: The same in gzip; None: not worth it.
        media_type: Value for ``Content-Type``.
        etag: A weak tag, the same for both forms.
    """

    body: bytes
    packed: bytes | None
    media_type: str
    etag: str


class Assets:
    """All files, by their names below the folder.

    Attributes:
        files: Names, with ``/`` between folders, and what is behind them.
        digest: Changes whenever one of them does.
    """

    def __init__(self, files: Mapping[str, Asset]) -> None:
        self.files = files
        whole = hashlib.sha256()
        for name in sorted(files):
            whole.update(f"{name} {files[name].etag}\n".encode())
        self.digest = whole.hexdigest()[:16]

    def respond(self, request: Request, name: str, cache_control: str) -> Response:
        """The file `name`, or 304 where the browser has it.

        Raises:
            ApiProblem: There is no such file.
        """
        asset = self.files.get(name)
        if asset is None:
            raise ApiProblem("not_found")
        headers = {
            "Cache-Control": cache_control,
            "ETag": asset.etag,
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = asset.body
        if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            body = asset.packed
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type=asset.media_type)

    def modules_of(self, entry: str) -> list[str]:
        """Names of all modules that the module `entry` loads, itself first.

        A page names them in its head, so that a browser fetches them at once and not one after the
        other as it comes upon them.
        """
        found: list[str] = []
        ahead = [entry]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.append(name)
                ahead += self._imports(name)
        return found

    def _imports(self, name: str) -> Iterator[str]:
        folder = name.rpartition("/")[0]
        for match in _IMPORT.finditer(self.files[name].body.decode()):
            imported = match.group(1) or match.group(2)
            if imported == "livejobs":
                yield f"{CLIENT}index.js"
            else:
                yield f"{folder}/{imported.removeprefix('./')}".lstrip("/")


@cache
def assets() -> Assets:
    """The assets of this installation, read once.

    Raises:
        FileNotFoundError: The client is not where it should be.
    """
    files = dict(_files_in(STATIC, ""))
    files |= _files_in(_client_folder(), CLIENT)
    files[ENTRY] = _asset(_ENTRY_TEXT, ".js")
    return Assets(files)


def _client_folder() -> Path:
    """The client's modules: in the wheel beside this file, in a clone where they are written."""
    for folder in (_CLIENT_OF_WHEEL, _CLIENT_OF_CLONE):
        if (folder / "index.js").is_file():
            return folder
    raise FileNotFoundError(
        f"The JavaScript client is missing: neither {_CLIENT_OF_WHEEL} nor {_CLIENT_OF_CLONE} has "
        "an index.js. Install livejobs from its wheel, or work in a whole clone."
    )


def _files_in(folder: Path, prefix: str) -> Iterator[tuple[str, Asset]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _MEDIA_TYPES:
            name = prefix + path.relative_to(folder).as_posix()
            yield name, _asset(path.read_bytes(), path.suffix)


def _asset(body: bytes, suffix: str) -> Asset:
    packed = gzip.compress(body, mtime=0) if len(body) >= _LEAST_TO_COMPRESS else None
    tag = hashlib.sha256(body).hexdigest()[:16]
    return Asset(body, packed, _MEDIA_TYPES[suffix], f'W/"{tag}"')
