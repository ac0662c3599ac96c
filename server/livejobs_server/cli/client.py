"""The REST client of the commands that talk to a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import httpx
import typer

from livejobs.errors import LivejobsError, UnknownJob

from ..data_dir import find_key, find_running

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_DATA_DIR = Path(".livejobs")
TIMEOUT_SECONDS = 30.0

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="LIVEJOBS_URL",
        help="The server; default: the local `livejobs up`, else http://127.0.0.1:8000.",
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="LIVEJOBS_API_KEY",
        help="An API key; default: that of the local `livejobs up`.",
    ),
]
DataDirOption = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="LIVEJOBS_DATA_DIR", help="Data folder of the local `livejobs up`."
    ),
]


class ServerUnreachable(LivejobsError):
    """No server answers at the URL."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"No livejobs server answers at {url} ({reason}): start one by `livejobs up`, or name "
            "it by --url or LIVEJOBS_URL."
        )


class RequestRefused(LivejobsError):
    """The server answered with a problem.

    Attributes:
        status: The HTTP status.
        code: The problem's code, None where there is none.
    """

    def __init__(self, status: int, code: str | None, detail: str) -> None:
        self.status = status
        self.code = code
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the credentials for it.

    Attributes:
        url: Its URL, without /v1.
        key: An API key, None where there is none.
    """

    url: str
    key: str | None = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where no proxy of the environment applies."""
        return urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """An HTTP client for it.

        Raises:
            ServerUnreachable: Nobody answers.
        """
        headers = {"X-API-Key": self.key} if self.key else {}
        try:
            with httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                trust_env=not self.is_local,
            ) as client:
                yield client
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.url, str(error) or type(error).__name__) from None

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One request; the answer's JSON.

        Raises:
            ServerUnreachable: Nobody answers.
            RequestRefused: The server answers with a problem.
        """
        with self.client() as client:
            return read_answer(client.request(method, path, **options))

    def job(self, method: str, job_id: str, action: str = "") -> Any:
        """A request about one job.

        Raises:
            UnknownJob: There is no such job, or it is not yours.
            ServerUnreachable, RequestRefused: As `request()`.
        """
        try:
            return self.request(method, f"/v1/jobs/{quote(job_id, safe='')}{action}")
        except RequestRefused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                raise UnknownJob(job_id) from None
            raise


def find_server(url: str | None, key: str | None, data_dir: Path) -> Server:
    """The server that the options name, else the local `up`, else the default URL.

    The local key is shown to nobody but the local server.
    """
    running = find_running(data_dir)
    local = running.url if running else None
    chosen = (url or local or DEFAULT_URL).rstrip("/")
    if key is None and chosen == local:
        key = find_key(data_dir)
    return Server(chosen, key)


def read_answer(response: httpx.Response) -> Any:
    """The JSON of a good answer.

    Raises:
        RequestRefused: It is a problem.
    """
    if response.is_success:
        return response.json() if response.content else None
    raise refusal(response)


def refusal(response: httpx.Response) -> RequestRefused:
    """The problem in an answer, in words."""
    status = response.status_code
    try:
        problem = response.json()
        detail = str(problem.get("detail") or problem.get("title") or status)
        code = problem.get("code")
        fields = problem.get("errors") or ()
    except (ValueError, AttributeError):
        return RequestRefused(status, None, f"The server answered {status}: {response.text[:200]}")
    if status == httpx.codes.UNAUTHORIZED:
        detail = f"{detail} Give a key by --key or LIVEJOBS_API_KEY."
    lines = [detail, *(f"  {field.get('field')}: {field.get('message')}" for field in fields)]
    return RequestRefused(status, code, "\n".join(lines))
