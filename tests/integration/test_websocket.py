"""WebSockets over a real server, database and Valkey, led by hand from one moment to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from livejobs.settings import Settings
from livejobs_server.push import dialogue, socket_watcher, watcher

from ..support.led_jobs import MakeJob
from ..support.live_server import (
    LiveServer,
    closed,
    is_alive,
    kinds,
    on_sqlite,
    receive,
    receive_until,
    running_server,
    send,
    subscribe,
    texts,
)

pytest_plugins = ["tests.support.live_stack"]

# -- a job, from before its start to its end -----------------------------------------------------


async def test_subscription_gets_the_view_then_every_change_then_the_end(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket() as socket:
        first = await subscribe(socket, job.id, ref=7)
        assert first[0] == {"type": "subscribed", "job_id": job.id, "recovered": True, "ref": 7}
        assert (first[1]["id"], first[1]["job"]["status"]) == ("0-0", "pending")
        await job.claim()
        await job.say("one", "two")
        await job.progress(50)
        await job.complete({"pages": 2})
        told = await receive_until(socket, "end")
        assert kinds(told) == ["job", "log", "output", "progress", "job", "end"]
        assert [message["id"] for message in told] == [
            "1-0", "1-1", "1-2", "1-2", "1-2", "1-2-end",
        ]  # fmt: skip
        assert told[-2]["job"]["result"] == {"pages": 2}
        assert await is_alive(socket)


async def test_subscription_to_a_job_that_is_over_gets_everything_and_the_end(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three")
    await job.fail("It broke.")
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        told = await receive_until(socket, "end")
        assert kinds(told) == ["subscribed", "job", "log", "output", "log", "end"]
        assert told[1]["job"]["error"] == {"type": "ValueError", "message": "It broke."}


async def test_subscription_resumes_after_its_cursor(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three")
    async with server.socket() as socket:
        await subscribe(socket, job.id, after="1-2")
        assert texts([await receive(socket)]) == ["three"]
        await job.say("four")
        assert texts([await receive(socket)]) == ["four"]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [("none", []), ("tail:2", ["two", "three", "four"]), ("tail:0", ["four"])],
)
async def test_subscription_takes_only_the_entries_it_asks_for(
    server: LiveServer, make_job: MakeJob, entries: str, expected: list[str]
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three")
    async with server.socket() as socket:
        await subscribe(socket, job.id, entries=entries)
        await job.say("four")
        await job.complete()
        assert texts(await receive_until(socket, "end")) == expected


async def test_attempts_follow_each_other_on_one_subscription(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket() as socket:
        await subscribe(socket, job.id)
        await job.claim()
        await job.say("first try")
        await job.retry()
        await job.claim()
        await job.say("second try")
        await job.complete()
        told = await receive_until(socket, "end")
        assert [message["id"] for message in told if message["type"] == "log"] == ["1-1", "2-1"]
        assert told[-2]["job"]["attempt"] == 2


async def test_second_subscription_to_a_job_replaces_the_first(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one")
    async with server.socket() as socket:
        await subscribe(socket, job.id, ref=1)
        assert texts([await receive(socket)]) == ["one"]
        again = await subscribe(socket, job.id, ref=2)
        assert (again[0]["ref"], again[0]["type"]) == (2, "subscribed")
        assert texts([await receive(socket)]) == ["one"]
        await job.say("two")
        await job.complete()
        assert texts(await receive_until(socket, "end")) == ["two"]


async def test_unsubscribed_job_is_heard_of_no_more(server: LiveServer, make_job: MakeJob) -> None:
    job, other = await make_job(), await make_job()
    async with server.socket() as socket:
        await subscribe(socket, job.id)
        await subscribe(socket, other.id)
        await send(socket, op="unsubscribe", job_id=job.id, ref=3)
        assert await receive(socket) == {"type": "unsubscribed", "job_id": job.id, "ref": 3}
        await job.claim()
        await other.claim()
        assert (await receive(socket))["job"]["job_id"] == other.id
        # Asking again, or for what was never watched, is no mistake.
        await send(socket, op="unsubscribe", job_id="never-watched")
        assert (await receive(socket))["type"] == "unsubscribed"


async def test_jobs_on_one_connection_are_told_side_by_side(
    server: LiveServer, make_job: MakeJob
) -> None:
    jobs = [await make_job() for _ in range(5)]
    async with server.socket() as socket:
        for job in jobs:
            await subscribe(socket, job.id)
        for job in jobs:
            await job.claim()
            await job.say(f"of {job.id}")
            await job.complete()
        told = [message for _ in jobs for message in await receive_until(socket, "end")]
        assert {message["job_id"] for message in told if message["type"] == "end"} == {
            job.id for job in jobs
        }
        assert texts(told) == [f"of {job.id}" for job in jobs]


# -- one job's own socket ------------------------------------------------------------------------


async def test_single_job_socket_is_subscribed_at_once_and_closes_after_the_end(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        assert kinds(await receive_until(socket, "job")) == ["subscribed", "job"]
        await job.claim()
        await job.say("one")
        await job.complete()
        await receive_until(socket, "end")
        assert await closed(socket) == (1000, "the job is over")


@pytest.mark.parametrize(
    ("query", "expected"),
    [("after=1-3", ["four"]), ("entries=tail:2", ["three", "four"]), ("entries=none", [])],
)
async def test_single_job_socket_takes_cursor_and_entries_from_its_url(
    server: LiveServer, make_job: MakeJob, query: str, expected: list[str]
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three", "four")
    await job.complete()
    async with server.socket(f"/v1/jobs/{job.id}/ws?{query}") as socket:
        assert texts(await receive_until(socket, "end")) == expected


async def test_single_job_socket_says_what_is_wrong_with_its_url(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket(f"/v1/jobs/{job.id}/ws?after=rubbish") as socket:
        assert (await receive(socket))["code"] == "invalid_cursor"
        assert (await closed(socket))[0] == 4400


@pytest.mark.parametrize("job_id", ["nobody", "a%00b", "x" * 300])
async def test_single_job_socket_of_an_unknown_job_closes_4404(
    server: LiveServer, job_id: str
) -> None:
    async with server.socket(f"/v1/jobs/{job_id}/ws") as socket:
        assert (await receive(socket))["code"] == "unknown_job"
        assert (await closed(socket))[0] == 4404


async def test_single_job_socket_of_a_foreign_job_looks_like_an_unknown_one(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job(owner="bob")
    seen = []
    for job_id in (job.id, "0" * len(job.id)):
        async with server.socket(f"/v1/jobs/{job_id}/ws") as socket:
            message = await receive(socket)
            assert message.pop("job_id") == job_id
            seen.append((message, await closed(socket)))
    assert seen[0] == seen[1]
    assert seen[0][1][0] == 4404


async def test_single_job_socket_watches_no_other_job(
    server: LiveServer, make_job: MakeJob
) -> None:
    job, other = await make_job(), await make_job()
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        await receive_until(socket, "job")
        await send(socket, op="subscribe", job_id=other.id, ref=1)
        problem = await receive(socket)
        assert (problem["code"], problem["ref"]) == ("invalid_request", 1)
        await send(socket, op="unsubscribe", job_id=job.id)
        assert (await receive(socket))["type"] == "unsubscribed"
        assert await closed(socket) == (1000, "unsubscribed")


@pytest.mark.parametrize(
    ("path", "problem", "code"),
    [
        ("a%00b/ws", "unknown_job", 4404),
        ("nobody/ws", "unknown_job", 4404),
        ("nobody/ws?after=rubbish", "invalid_cursor", 4400),
    ],
)
async def test_single_job_socket_closes_for_what_ended_its_watch_whatever_followed(
    server: LiveServer, path: str, problem: str, code: int
) -> None:
    async with server.socket(f"/v1/jobs/{path}", owner=None) as socket:
        await send(socket, op="auth", token=server.token())
        told = [await receive(socket) for _ in range(2)]
        assert sorted(kinds(told)) == ["authenticated", "problem"]
        assert [m["code"] for m in told if m["type"] == "problem"] == [problem]
        assert (await closed(socket))[0] == code


async def test_single_job_socket_closes_for_the_end_after_a_problem(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        await receive_until(socket, "job")
        await send(socket, op="subscribe", job_id=job.id, after="rubbish")
        assert (await receive(socket))["code"] == "invalid_cursor"
        await job.claim()
        await job.complete()
        await receive_until(socket, "end")
        assert await closed(socket) == (1000, "the job is over")


# -- what cannot be served -----------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"op": "subscribe", "job_id": "nobody"}, "unknown_job"),
        ({"op": "subscribe", "job_id": "a\0b"}, "unknown_job"),
        ({"op": "subscribe", "job_id": "nobody", "after": "rubbish"}, "invalid_cursor"),
        ({"op": "subscribe"}, "invalid_request"),
        ({"op": "subscribe", "job_id": "\ud800"}, "invalid_request"),
        ({"op": "subscribe", "feed": "ours"}, "unknown_feed"),
        ({"op": "subscribe", "feed": "tag:=x"}, "unknown_feed"),
        ({"op": "subscribe", "feed": "tag:a\0=x"}, "unknown_feed"),
        ({"op": "subscribe", "feed": "all"}, "forbidden_feed"),
        ({"op": "subscribe", "feed": "children:nobody"}, "unknown_job"),
        ({"op": "subscribe", "feed": "children:"}, "unknown_feed"),
        ({"op": "subscribe", "feed": "mine", "since": "rubbish"}, "invalid_cursor"),
        ({"op": "subscribe", "feed": "mine", "job_id": "j"}, "invalid_request"),
        ({"op": "unsubscribe"}, "invalid_request"),
        ({"op": "dance"}, "unknown_op"),
        ({"hello": "there"}, "invalid_request"),
        ({"op": "auth"}, "invalid_request"),
        ({"op": "auth", "token": "rubbish"}, "unauthenticated"),
    ],
)
async def test_request_that_cannot_be_served_gets_a_problem_and_the_connection_stays(
    server: LiveServer, fields: dict[str, Any], code: str
) -> None:
    async with server.socket() as socket:
        await send(socket, ref=5, **fields)
        problem = await receive(socket)
        assert (problem["type"], problem["code"], problem["ref"]) == ("problem", code, 5)
        assert problem.get("job_id", fields.get("job_id")) == fields.get("job_id")
        assert problem["message"]
        assert await is_alive(socket)


async def test_foreign_job_looks_like_an_unknown_one(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job(owner="bob")
    async with server.socket() as socket:
        answers = []
        for job_id in (job.id, "unknown"):
            await send(socket, op="subscribe", job_id=job_id, ref=1)
            answers.append(await receive(socket))
            assert answers[-1].pop("job_id") == job_id
        assert answers[0] == answers[1]
        await job.claim()
        assert await is_alive(socket)


@on_sqlite
@pytest.mark.parametrize(
    "text",
    ["", "rubbish", "[]", "17", b'{"op":"ping"}', '{"op":"ping","x":"' + "x" * 1_100_000 + '"}'],
    ids=["empty", "rubbish", "array", "number", "binary", "large"],
)
async def test_what_is_no_message_closes_4400(server: LiveServer, text: str | bytes) -> None:
    async with server.socket() as socket:
        await socket.send(text)
        code, reason = await closed(socket)
        assert code == 4400
        assert reason


@on_sqlite
async def test_too_many_subscriptions_are_refused_one_by_one(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "MAX_SUBSCRIPTIONS", 2)
    jobs = [await make_job() for _ in range(3)]
    async with server.socket() as socket:
        for job in jobs[:2]:
            await subscribe(socket, job.id)
        await send(socket, op="subscribe", job_id=jobs[2].id, ref=3)
        problem = await receive(socket)
        assert (problem["code"], problem["ref"]) == ("too_many_subscriptions", 3)
        # What ended, or was unsubscribed, makes room; the same job again needs none.
        await subscribe(socket, jobs[1].id)
        await jobs[0].claim()
        await jobs[0].complete()
        await receive_until(socket, "end")
        await subscribe(socket, jobs[2].id)


@on_sqlite
async def test_too_many_requests_close_4429(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue, "OPS_AT_ONCE", 5)
    monkeypatch.setattr(dialogue, "OPS_PER_SECOND", 0.001)
    async with server.socket() as socket:
        for _ in range(6):
            await send(socket, op="ping")
        assert (await closed(socket))[0] == 4429


# -- who is asking -------------------------------------------------------------------------------


async def test_auth_comes_first_where_the_handshake_carries_nothing(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.socket(owner=None) as socket:
        await send(socket, op="auth", token=server.token(), ref=1)
        assert await receive(socket) == {"type": "authenticated", "ref": 1}
        await subscribe(socket, job.id)
    async with server.socket(f"/v1/jobs/{job.id}/ws", owner=None) as socket:
        await send(socket, op="auth", token=server.token())
        told = [await receive(socket) for _ in range(3)]
        assert sorted(kinds(told)) == ["authenticated", "job", "subscribed"]


@on_sqlite
@pytest.mark.parametrize(
    "op",
    [
        {"op": "auth", "token": "rubbish"},
        {"op": "ping"},
        {"op": "subscribe", "job_id": "anything"},
        {"op": "unsubscribe", "job_id": "anything"},
    ],
    ids=lambda op: op["op"],
)
async def test_without_credentials_nothing_but_a_good_auth_is_served(
    server: LiveServer, op: dict[str, str]
) -> None:
    async with server.socket(owner=None) as socket:
        await send(socket, **op)
        assert (await closed(socket))[0] == 4401


@on_sqlite
async def test_wrong_credentials_in_the_handshake_close_4401(server: LiveServer) -> None:
    headers = {"Authorization": "Bearer rubbish"}
    async with server.socket(additional_headers=headers) as socket:
        assert (await closed(socket))[0] == 4401


@on_sqlite
async def test_connection_that_never_authenticates_is_closed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_watcher, "AUTH_SECONDS", 0.2)
    async with server.socket(owner=None) as socket:
        assert (await closed(socket))[0] == 4401


async def test_expired_credentials_close_4401_and_fresh_ones_keep_it_open(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    headers = {"Authorization": f"Bearer {server.token(ttl_seconds=2)}"}
    async with (
        server.socket(additional_headers=headers) as renewed,
        server.socket(additional_headers=headers) as expiring,
    ):
        await subscribe(renewed, job.id)
        await subscribe(expiring, job.id)
        await send(renewed, op="auth", token=server.token(), ref=1)
        assert (await receive(renewed))["type"] == "authenticated"
        assert (await closed(expiring))[0] == 4401
        await job.claim()
        assert (await receive(renewed))["job"]["status"] == "processing"


async def test_fresh_credentials_must_be_the_same_owners(
    server: LiveServer, make_job: MakeJob
) -> None:
    job, foreign = await make_job(), await make_job(owner="bob")
    async with server.socket() as socket:
        await subscribe(socket, job.id)
        await send(socket, op="auth", token=server.token("bob"), ref=1)
        problem = await receive(socket)
        assert (problem["code"], problem["ref"]) == ("other_owner", 1)
        await send(socket, op="subscribe", job_id=foreign.id)
        assert (await receive(socket))["code"] == "unknown_job"
        await job.claim()
        assert (await receive(socket))["job"]["job_id"] == job.id


async def test_narrower_credentials_end_what_they_may_not_see(
    server: LiveServer, make_job: MakeJob
) -> None:
    kept, hidden = await make_job(), await make_job()
    async with server.socket() as socket:
        await subscribe(socket, kept.id)
        await subscribe(socket, hidden.id)
        await send(socket, op="auth", token=server.token(jobs=[kept.id]))
        problem = await receive(socket)
        assert (problem["code"], problem["job_id"]) == ("unknown_job", hidden.id)
        assert (await receive(socket))["type"] == "authenticated"
        await hidden.claim()
        await kept.claim()
        assert (await receive(socket))["job"]["job_id"] == kept.id


@on_sqlite
async def test_page_of_another_origin_is_refused(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with server.socket(origin="https://evil.example"):
            pass
    response = refused.value.response
    assert response.status_code == 403
    assert json.loads(response.body or b"{}")["code"] == "origin_not_allowed"
    async with server.socket(origin=f"http://127.0.0.1:{server.port}") as socket:
        assert await is_alive(socket)


# -- signs of life -------------------------------------------------------------------------------


@on_sqlite
async def test_ping_is_answered_and_silence_is_filled(settings: Settings) -> None:
    quick = settings.model_copy(update={"ping_interval": 0.2})
    async with running_server(quick) as server, server.socket() as socket:
        await send(socket, op="ping", ref=4)
        assert await receive(socket) == {"type": "pong", "ref": 4}
        assert [await receive(socket) for _ in range(3)] == [{"type": "ping"}] * 3
