"""Signed tokens: credentials that a server hands out and any of its processes can verify.

A token names an owner, scopes, an end, and mostly the jobs it is good for. The cookie of an event
stream is one too, for another audience, so that neither passes for the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterable
from typing import Any, Final

import jwt

from livejobs.errors import SettingsError
from livejobs.settings import Settings, get_settings

from .viewer import ALL_JOBS, READ, WRITE, Viewer

ALGORITHM: Final = "HS256"
TOKEN_AUDIENCE: Final = "livejobs"
STREAM_AUDIENCE: Final = "livejobs:stream"
MAX_TOKEN_CHARACTERS: Final = 8192
REMEMBERED_TOKENS: Final = 1024
"""Tokens whose signatures are not verified again: a client shows its own with each request."""


def sign_token(
    *,
    jobs: Iterable[str] | None = None,
    feed: str | None = None,
    owner: str | None = None,
    scopes: Iterable[str] = (READ, WRITE),
    ttl_seconds: float | None = None,
    settings: Settings | None = None,
) -> str:
    """A token for a browser, signed in this process; the caller vouches for what it allows.

    Args:
        jobs: Ids of the jobs it is good for, whoever owns them; None: all jobs of `owner`.
        feed: The feed it is good for, such as ``mine``, and nothing else; None: no such limit.
            With ``all`` it shows everybody's jobs.
        owner: Whose jobs it is good for; jobs created with it belong to them.
        scopes: `read`, and `write` to cancel and run again.
        ttl_seconds: How long it is good; None: `LIVEJOBS_TOKEN_TTL`.
        settings: Those of the server that is to accept it; None: this process's.

    Raises:
        SettingsError: `LIVEJOBS_SECRETS` is not set.
        ValueError: Neither `jobs` nor `owner` was given, nor the feed ``all``; or a scope that no
            token may have.
    """
    wanted = frozenset(scopes)
    if not wanted <= {READ, WRITE}:
        raise ValueError("a token can have the scopes read and write")
    if jobs is None and not owner and feed != ALL_JOBS:
        raise ValueError("a token needs jobs, an owner, or both")
    settings = settings or get_settings()
    limit = None if jobs is None else frozenset(jobs)
    ttl = settings.token_ttl if ttl_seconds is None else ttl_seconds
    viewer = Viewer(owner or "", wanted, limit, feed, time.time() + ttl)
    return sign_viewer(viewer, settings)


def sign_viewer(viewer: Viewer, settings: Settings, audience: str = TOKEN_AUDIENCE) -> str:
    """`viewer`, which must have an end, as a signed token.

    Raises:
        SettingsError: `LIVEJOBS_SECRETS` is not set.
    """
    if not settings.secrets:
        raise SettingsError(
            "Tokens cannot be signed: set LIVEJOBS_SECRETS to a secret of at least 32 characters, "
            "e.g. from `openssl rand -hex 32`."
        )
    if viewer.expires_at is None:
        raise ValueError("a token must expire")
    claims: dict[str, Any] = {
        "aud": audience,
        "sub": viewer.owner,
        "scope": " ".join(sorted(viewer.scopes)),
        "exp": viewer.expires_at,
    }
    if viewer.jobs is not None:
        claims["jobs"] = sorted(viewer.jobs)
    if viewer.feed is not None:
        claims["feed"] = viewer.feed
    return jwt.encode(claims, settings.secrets[0].get_secret_value(), algorithm=ALGORITHM)


def verify_token(token: str, settings: Settings, audience: str = TOKEN_AUDIENCE) -> Viewer | None:
    """The viewer a token stands for; None where it is forged, expired or no such token."""
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        return None
    secrets = tuple(secret.get_secret_value() for secret in settings.secrets)
    try:
        viewer = _verified(token, secrets, audience)
    except jwt.InvalidTokenError:
        return None
    assert viewer.expires_at is not None
    return viewer if viewer.expires_at > time.time() else None


@functools.lru_cache(maxsize=REMEMBERED_TOKENS)
def _verified(token: str, secrets: tuple[str, ...], audience: str) -> Viewer:
    """The viewer of a token, which may have expired since.

    Raises:
        jwt.InvalidTokenError: It is forged, expired or no such token; that is not remembered.
    """
    for secret in secrets:
        with contextlib.suppress(jwt.InvalidSignatureError):
            claims = jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                audience=audience,
                options={"require": ["aud", "sub", "exp"]},
            )
            return _viewer(claims)
    raise jwt.InvalidSignatureError


_SCOPES: Final = {
    (reads, writes): frozenset([READ] * reads + [WRITE] * writes)
    for reads in (False, True)
    for writes in (False, True)
}


def _viewer(claims: dict[str, Any]) -> Viewer:
    jobs = claims.get("jobs")
    named = claims.get("scope", "").split()
    return Viewer(
        owner=claims["sub"],
        # Whatever a token says, it does not make an admin. There are many viewers, and few such
        # sets.
        scopes=_SCOPES[READ in named, WRITE in named],
        jobs=None if jobs is None else frozenset(jobs),
        feed=claims.get("feed"),
        expires_at=float(claims["exp"]),
    )


def bounded_end(viewer: Viewer, ttl_seconds: float) -> float:
    """When credentials made for `viewer` end: after `ttl_seconds`, and never after its own."""
    end = time.time() + ttl_seconds
    return end if viewer.expires_at is None else min(end, viewer.expires_at)


def job_token(viewer: Viewer, job_id: str, settings: Settings) -> str | None:
    """A token for one job of the viewer's; None where there is no secret to sign it with."""
    if not settings.secrets:
        return None
    limited = viewer.limited_to([job_id])
    end = bounded_end(viewer, settings.token_ttl)
    return sign_viewer(dataclasses.replace(limited, expires_at=end), settings)
