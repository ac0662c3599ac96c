"""Who may see what, signed tokens, and the origin of pages; without I/O."""

import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from starlette.requests import HTTPConnection

from livejobs.database import AsyncDatabase
from livejobs.errors import SettingsError
from livejobs.settings import Settings
from livejobs_server import sign_token
from livejobs_server.auth import Access, is_async
from livejobs_server.keys import create_key
from livejobs_server.push.scope import ForbiddenFeed, Scope, UnknownFeed, scope_of
from livejobs_server.tokens import (
    STREAM_AUDIENCE,
    bounded_end,
    job_token,
    sign_viewer,
    verify_token,
)
from livejobs_server.viewer import Viewer

OLD, NEW, OTHER = "old-" * 10, "new-" * 10, "other-" * 10
ALICE = Viewer("alice")
READ, ONLY_J = frozenset({"read"}), frozenset({"j"})


def settings(*secrets: str, **more: Any) -> Settings:
    return Settings(secrets=",".join(secrets), **more)


def connection(path: str = "/v1/ws", query: str = "", **headers: str) -> HTTPConnection:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection(
        {"type": "http", "path": path, "query_string": query.encode(), "headers": raw}
    )


def access(*secrets: str, **more: Any) -> Access:
    found = settings(*secrets, **more)
    return Access(found, AsyncDatabase(found))


# -- what a viewer reaches -------------------------------------------------------------------------


def test_viewer_sees_own_jobs_only() -> None:
    assert ALICE.may_see("j", "alice")
    assert ALICE.may_change("j", "alice")
    assert not ALICE.may_see("j", "bob")
    assert not ALICE.may_change("j", "bob")


def test_viewer_without_owner_does_not_see_nobodys_jobs() -> None:
    assert not Viewer("").may_see("j", "")


def test_admin_sees_everybodys_and_nobodys_jobs() -> None:
    admin = Viewer("root", frozenset({"admin"}))
    assert admin.may_see("j", "bob")
    assert admin.may_change("j", "")


def test_viewer_limited_to_jobs_sees_these_whoever_owns_them() -> None:
    limited = Viewer("alice", jobs=frozenset({"j"}))
    assert limited.may_see("j", "bob")
    assert not limited.may_see("k", "alice")


def test_viewer_limited_to_a_feed_sees_no_job_by_its_id() -> None:
    assert not Viewer("alice", feed="mine").may_see("j", "alice")
    assert not Viewer("alice", jobs=frozenset({"j"}), feed="mine").may_see("j", "alice")


def test_viewer_limited_to_a_feed_follows_that_alone() -> None:
    limited = Viewer("alice", feed="tag:k=v")
    assert limited.may_follow("tag:k=v")
    assert not limited.may_follow("mine")
    assert limited.may_see_in("tag:k=v", "j", "alice")
    assert not limited.may_see_in("tag:k=v", "j", "bob")
    assert not limited.may_see_in("mine", "j", "alice")
    # Only who may follow it has it signed into a token.
    assert Viewer("root", feed="all").may_see_in("all", "j", "bob")


def test_feeds_show_what_the_viewer_may_see() -> None:
    admin = Viewer("root", frozenset({"admin"}))
    assert admin.may_see_in("all", "j", "")
    assert admin.may_see_in("children:p", "j", "bob")
    assert not ALICE.may_follow("all")
    assert not ALICE.may_see_in("all", "j", "alice")
    assert not ALICE.may_see_in("mine", "j", "bob")
    assert not Viewer("").may_see_in("mine", "j", "")
    assert not Viewer("alice", frozenset({"write"})).may_follow("mine")
    some = Viewer("alice", jobs=frozenset({"j"}))
    assert some.may_see_in("mine", "j", "bob")
    assert not some.may_see_in("mine", "k", "alice")


def test_feed_means_what_its_viewer_may_see() -> None:
    admin = Viewer("root", frozenset({"admin"}))
    assert scope_of("mine", ALICE) == Scope("mine", "alice")
    assert scope_of("mine", admin) == Scope("mine", "root")
    assert scope_of("all", admin) == Scope("all")
    assert scope_of("tag:a=b=c", ALICE) == Scope("tag:a=b=c", "alice", ("a", "b=c"))
    assert scope_of("tag:a=", admin) == Scope("tag:a=", None, ("a", ""))
    assert scope_of("children:p", ALICE) == Scope("children:p", parent_id="p")
    with pytest.raises(ForbiddenFeed):
        scope_of("all", ALICE)


@pytest.mark.parametrize(
    "feed",
    ["", "Mine", "mine ", "tag", "tag:", "tag:a", "tag:=b", "children:", "children:" + "x" * 256,
     "tag:a=\0", "tag:a=\ud800", "tag:a=" + "x" * 512, "owner:bob"],
)  # fmt: skip
def test_text_that_names_no_feed_is_refused(feed: str) -> None:
    with pytest.raises(UnknownFeed):
        scope_of(feed, ALICE)


def test_viewer_limited_to_jobs_is_no_admin() -> None:
    limited = Viewer("root", frozenset({"read", "admin"}), frozenset({"j"}))
    assert not limited.is_admin
    assert not limited.may_see("k", "bob")


def test_viewer_without_write_changes_nothing() -> None:
    reader = Viewer("alice", frozenset({"read"}))
    assert reader.may_see("j", "alice")
    assert not reader.may_change("j", "alice")


def test_viewer_without_read_sees_nothing() -> None:
    assert not Viewer("alice", frozenset({"write"})).may_see("j", "alice")


def test_limiting_an_admin_leaves_read_and_write() -> None:
    limited = Viewer("root", frozenset({"admin"})).limited_to(["j"])
    assert limited.scopes == {"read", "write"}
    assert limited.may_see("j", "bob")


def test_viewer_survives_being_stored() -> None:
    viewer = Viewer("alice", frozenset({"read"}), frozenset({"j"}), None, 12.5)
    assert Viewer.from_json(viewer.to_json()) == viewer


# -- tokens ----------------------------------------------------------------------------------------


def test_token_carries_owner_scopes_and_jobs() -> None:
    token = sign_token(jobs=["j"], owner="alice", scopes=["read"], settings=settings(NEW))
    viewer = verify_token(token, settings(NEW))
    assert viewer is not None
    assert (viewer.owner, viewer.scopes, viewer.jobs) == ("alice", READ, ONLY_J)
    assert viewer.expires_at == pytest.approx(time.time() + 900, abs=5)


def test_token_of_an_older_secret_is_verified() -> None:
    token = sign_token(jobs=["j"], settings=settings(OLD))
    assert verify_token(token, settings(NEW, OLD)) is not None


def test_token_is_signed_with_the_first_secret() -> None:
    token = sign_token(jobs=["j"], settings=settings(NEW, OLD))
    assert verify_token(token, settings(NEW)) is not None
    assert verify_token(token, settings(OLD)) is None


def test_token_of_another_secret_is_refused() -> None:
    assert verify_token(sign_token(jobs=["j"], settings=settings(OTHER)), settings(NEW)) is None


def test_token_is_refused_after_its_end() -> None:
    token = sign_token(jobs=["j"], ttl_seconds=-1, settings=settings(NEW))
    assert verify_token(token, settings(NEW)) is None


def test_token_without_a_signature_is_refused() -> None:
    claims = {"aud": "livejobs", "sub": "alice", "exp": time.time() + 60}
    assert verify_token(jwt.encode(claims, "", algorithm="none"), settings(NEW)) is None


@pytest.mark.parametrize("missing", ["aud", "sub", "exp"])
def test_token_that_lacks_a_claim_is_refused(missing: str) -> None:
    claims: dict[str, Any] = {"aud": "livejobs", "sub": "alice", "exp": time.time() + 60}
    del claims[missing]
    assert verify_token(jwt.encode(claims, NEW, algorithm="HS256"), settings(NEW)) is None


@pytest.mark.parametrize("rubbish", ["", "x", "a.b.c", "lj_1_2", "e" * 100_000, "\ud800", "ü.ü.ü"])
def test_token_that_is_none_is_refused(rubbish: str) -> None:
    assert verify_token(rubbish, settings(NEW)) is None


def test_token_does_not_make_an_admin() -> None:
    claims = {"aud": "livejobs", "sub": "a", "exp": time.time() + 60, "scope": "read admin"}
    viewer = verify_token(jwt.encode(claims, NEW, algorithm="HS256"), settings(NEW))
    assert viewer is not None
    assert viewer.scopes == {"read"}


def test_token_of_a_stream_opens_nothing_else() -> None:
    viewer = replace(ALICE, expires_at=time.time() + 60)
    cookie = sign_viewer(viewer, settings(NEW), STREAM_AUDIENCE)
    assert verify_token(cookie, settings(NEW)) is None
    assert verify_token(cookie, settings(NEW), STREAM_AUDIENCE) is not None


def test_signing_without_a_secret_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match="LIVEJOBS_SECRETS"):
        sign_token(jobs=["j"], settings=settings())


def test_signing_for_nobody_and_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="jobs, an owner"):
        sign_token(settings=settings(NEW))


def test_signing_an_admin_is_refused() -> None:
    with pytest.raises(ValueError, match="read and write"):
        sign_token(owner="alice", scopes=["admin"], settings=settings(NEW))


def test_token_made_for_a_viewer_ends_with_the_viewer() -> None:
    soon = time.time() + 10
    assert bounded_end(replace(ALICE, expires_at=soon), 900) == soon
    assert bounded_end(ALICE, 900) == pytest.approx(time.time() + 900, abs=5)


def test_token_of_a_new_job_is_left_out_without_a_secret() -> None:
    assert job_token(ALICE, "j", settings()) is None


# -- a connection ----------------------------------------------------------------------------------


async def test_bearer_token_names_the_viewer() -> None:
    token = sign_token(owner="alice", settings=settings(NEW))
    viewer = await access(NEW).authenticate(connection(authorization=f"bearer {token}"))
    assert viewer is not None
    assert viewer.owner == "alice"


@pytest.mark.parametrize("header", ["Basic YWxpY2U6eA==", "Bearer", "Bearer ", "x", ""])
async def test_other_authorization_names_nobody(header: str) -> None:
    assert await access(NEW).authenticate(connection(authorization=header)) is None


async def test_users_function_names_the_viewer_sync_and_async() -> None:
    async def ask(_connection: HTTPConnection) -> Viewer | None:
        return ALICE

    found = settings(NEW)
    for authenticate in (ask, lambda _connection: ALICE):
        own = Access(found, AsyncDatabase(found), authenticate)
        assert await own.authenticate(connection()) == ALICE


async def test_users_function_that_returns_something_else_is_a_mistake() -> None:
    found = settings(NEW)
    own = Access(found, AsyncDatabase(found), lambda _connection: "alice")  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match=r"livejobs_server\.Viewer"):
        await own.authenticate(connection())


async def test_users_function_takes_the_place_of_keys() -> None:
    found = settings(NEW)
    own = Access(found, AsyncDatabase(found), lambda _connection: None)
    assert await own.authenticate_token("lj_aa_bb") is None


async def test_signed_token_is_good_beside_a_users_function() -> None:
    found = settings(NEW)
    own = Access(found, AsyncDatabase(found), lambda _connection: None)
    token = sign_token(jobs=["j"], settings=found)
    viewer = await own.authenticate(connection(authorization=f"Bearer {token}"))
    assert viewer is not None
    assert viewer.jobs == ONLY_J


def test_callable_object_with_an_async_call_is_async() -> None:
    class Ask:
        async def __call__(self, connection: HTTPConnection) -> Viewer | None:
            return None

    assert is_async(Ask())
    assert not is_async(lambda _connection: None)


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("", {}, False),
        ("ticket=x", {}, True),
        ("", {"authorization": "Bearer x"}, True),
        ("", {"x_api_key": "x"}, True),
        ("after=1-2", {"cookie": "session=1"}, False),
    ],
)
def test_credentials_are_noticed(query: str, headers: dict[str, str], expected: bool) -> None:
    assert access(NEW).has_credentials(connection(query=query, **headers)) is expected


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "app.example", True),
        ("https://app.example", "app.example", True),
        ("https://APP.example", "app.example:443", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://evil.example", "app.example", False),
        ("https://app.example.evil.example", "app.example", False),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", False),
        ("null", "app.example", False),
        ("", "app.example", False),
        ("https://app.example:x", "app.example", False),
        ("https://partner.example", "app.example", True),
    ],
)
def test_origin_of_a_page(origin: str | None, host: str, allowed: bool) -> None:
    own = access(NEW, allowed_origins="https://partner.example")
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert own.origin_allowed(connection(**headers)) is allowed


def test_origin_star_allows_every_page() -> None:
    own = access(NEW, allowed_origins="*")
    assert own.origin_allowed(connection(origin="https://anybody.example", host="app.example"))


# -- the cookie of a stream ------------------------------------------------------------------------


async def test_stream_cookie_is_good_for_its_job_alone() -> None:
    own = access(NEW)
    header = own.stream_cookie(ALICE, "j", "/v1/jobs/j/events", secure=True)
    assert header is not None
    value, _, attributes = header.partition("; ")
    assert attributes.startswith("Path=/v1/jobs/j/events; Max-Age=")
    assert attributes.endswith("; HttpOnly; SameSite=Lax; Secure")
    found = await own.authenticate(connection(cookie=value), job_id="j")
    assert found is not None
    assert (found.owner, found.scopes, found.jobs) == ("alice", READ, ONLY_J)
    assert await own.authenticate(connection(cookie=value), job_id="k") is None
    assert await own.authenticate(connection(cookie=value)) is None


def test_stream_cookie_is_not_set_without_a_secret() -> None:
    assert access().stream_cookie(ALICE, "j", "/v1/jobs/j/events") is None


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "scopes"), [("", ["read"]), ("alice", []), ("alice", ["read", "root"])]
)
def test_key_for_nobody_or_nothing_is_refused(owner: str, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="a key needs"):
        create_key(AsyncDatabase(settings()), owner, scopes)
