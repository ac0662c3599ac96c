"""The server's numbers for Prometheus."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from ..numbers import samples_by_process
from ..problems import ApiProblem
from ..samples import exposition
from ..services import Services
from .fields import Server

router = APIRouter(tags=["health"])

_DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The text format of Prometheus; that of OpenMetrics where it is asked for.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
}
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@router.get(
    "/metrics",
    response_class=Response,
    responses=_DOCUMENTED,
    openapi_extra={"security": [{"bearer": []}, {"api_key": []}]},
)
async def metrics(request: Request, server: Server) -> Response:
    """Numbers of all server processes on this port, and of the jobs in the database.

    For scope admin and for the bearer of `LIVEJOBS_METRICS_TOKEN`; from the same machine for
    everybody, unless `LIVEJOBS_METRICS_LOCAL` is false.
    """
    await _check(request, server)
    told = await samples_by_process(server)
    shared = await server.job_numbers.samples()
    body, media_type = exposition(told, shared, request.headers.get("accept", ""))
    return Response(body, headers={"Cache-Control": "no-store"}, media_type=media_type)


async def _check(request: Request, server: Services) -> None:
    """Whether the numbers may be read.

    Raises:
        ApiProblem: They may not.
    """
    token = server.settings.metrics_token
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if token is not None and scheme.lower() == "bearer":
        expected = token.get_secret_value().encode()
        if hmac.compare_digest(shown.strip().encode("utf-8", "replace"), expected):
            return
    viewer = await server.access.authenticate(request)
    if viewer is None:
        if server.settings.metrics_local and is_local(request):
            return
        raise ApiProblem("unauthenticated")
    if not viewer.is_admin:
        raise ApiProblem("scope_missing", "These credentials lack the scope admin.")


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy on it.

    A page of somebody else's in a browser on this machine may have a name for 127.0.0.1: the name
    that was asked for counts too.
    """
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
