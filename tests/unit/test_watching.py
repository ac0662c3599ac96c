"""Reconnecting, falling back and remembering what was seen: the viewer's decisions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livejobs.entries import Cursor
from livejobs.views import (
    EndMessage,
    JobMessage,
    JobView,
    LogLine,
    LogMessage,
    OutputMessage,
    PingMessage,
    Progress,
    ProgressMessage,
    Status,
    SubscribedMessage,
)
from livejobs.watching import Picture
from livejobs.watching.policy import (
    LAST_CEILING,
    STABLE_AFTER,
    UPWARD_FIRST,
    UPWARD_LAST,
    Bookmark,
    Reconnection,
    Transport,
)
from livejobs.watching.transports import Dropped, Leaving, Target, parse_message

WEBSOCKET, SSE, POLL = Transport.WEBSOCKET, Transport.SSE, Transport.POLL
MOMENT = datetime(2024, 11, 15, tzinfo=UTC)


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_policy(chance: float = 1.0, **options: object) -> tuple[Reconnection, Clock]:
    clock = Clock()
    return Reconnection(clock=clock, chance=lambda: chance, **options), clock  # type: ignore[arg-type]


def lose(policy: Reconnection, clock: Clock, lived: float, **how: object) -> float:
    policy.opened()
    clock.now += lived
    return policy.closed(**how)  # type: ignore[arg-type]


def test_first_reconnect_after_a_stable_connection_is_at_once() -> None:
    policy, clock = make_policy()
    assert lose(policy, clock, STABLE_AFTER) == 0
    assert lose(policy, clock, STABLE_AFTER) == 0


def test_delays_double_up_to_the_last_ceiling() -> None:
    policy, clock = make_policy()
    delays = [lose(policy, clock, 0) for _ in range(10)]
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, LAST_CEILING, LAST_CEILING, LAST_CEILING]


def test_delays_are_spread_over_the_whole_interval() -> None:
    lowest, clock = make_policy(chance=0.0)
    assert [lose(lowest, clock, 0) for _ in range(5)] == [0, 0, 0, 0, 0]
    half, clock = make_policy(chance=0.5)
    assert [lose(half, clock, 0) for _ in range(4)] == [0, 0.25, 0.5, 1]


def test_a_server_that_hangs_up_at_once_is_not_called_in_a_tight_loop() -> None:
    policy, clock = make_policy()
    assert lose(policy, clock, 0.01) == 0
    assert lose(policy, clock, 0.01) > 0


def test_the_delay_that_the_server_asked_for_is_kept() -> None:
    policy, clock = make_policy()
    assert lose(policy, clock, 60, after=2.31) == 2.31


def test_a_busy_server_is_never_called_back_at_once() -> None:
    policy, clock = make_policy()
    assert lose(policy, clock, 60, busy=True) == 4.0


def test_transport_that_fails_to_open_twice_gives_way_to_the_next() -> None:
    policy, _ = make_policy()
    tried = []
    for _ in range(6):
        tried.append(policy.transport)
        policy.closed()
    assert tried == [WEBSOCKET, WEBSOCKET, SSE, SSE, POLL, POLL]


def test_after_the_last_transport_it_begins_again_with_the_best() -> None:
    policy, _ = make_policy()
    for _ in range(6):
        policy.closed()
    assert policy.transport is WEBSOCKET
    assert policy.upward_in() is None


def test_transport_that_opened_in_between_keeps_its_place() -> None:
    policy, clock = make_policy()
    for _ in range(5):
        policy.closed()
        lose(policy, clock, 1)
        assert policy.transport is WEBSOCKET


def test_only_transport_is_tried_for_ever() -> None:
    policy, _ = make_policy(transports=[SSE])
    for _ in range(7):
        policy.closed()
        assert policy.transport is SSE


def fall_to_sse(policy: Reconnection) -> None:
    policy.closed()
    policy.closed()
    policy.opened()
    assert policy.transport is SSE


def test_better_transport_is_tried_again_after_a_while() -> None:
    policy, clock = make_policy()
    fall_to_sse(policy)
    assert policy.upward_in() == UPWARD_FIRST
    clock.now += UPWARD_FIRST
    assert policy.upward_in() == 0
    policy.upward()
    assert policy.transport is WEBSOCKET
    policy.opened()
    assert policy.upward_in() is None


def test_try_upward_that_fails_goes_back_down_at_once_and_waits_longer() -> None:
    policy, clock = make_policy()
    fall_to_sse(policy)
    waits = []
    for _ in range(6):
        remaining = policy.upward_in()
        assert remaining is not None
        waits.append(remaining)
        clock.now += remaining
        policy.upward()
        assert policy.closed() == 0
        assert policy.transport is SSE
        policy.opened()
    assert waits == [60, 120, 240, 480, 960, UPWARD_LAST]


def test_upward_goes_one_step_at_a_time() -> None:
    policy, clock = make_policy()
    for _ in range(4):
        policy.closed()
    policy.opened()
    assert policy.transport is POLL
    clock.now += UPWARD_FIRST
    policy.upward()
    policy.opened()
    assert policy.transport is SSE
    assert policy.upward_in() == UPWARD_FIRST


def test_connection_lost_when_upward_is_due_comes_back_by_the_better_transport() -> None:
    policy, clock = make_policy()
    fall_to_sse(policy)
    clock.now += UPWARD_FIRST + 1
    policy.closed()
    assert policy.transport is WEBSOCKET


def view(version: int = 1, attempt: int = 1, current: int | None = None) -> JobMessage:
    progress = None if current is None else Progress(current=current)
    job = JobView(
        job_id="j",
        task="t",
        queue="q",
        status=Status.PROCESSING,
        version=version,
        attempt=attempt,
        max_attempts=None,
        owner="",
        progress=progress,
        created_at=MOMENT,
        updated_at=MOMENT,
    )
    return JobMessage(id=f"{attempt}-0", job=job)


def output(cursor: str) -> OutputMessage:
    return OutputMessage(id=cursor, job_id="j", text="x")


def progress(attempt: int, seq: int) -> ProgressMessage:
    return ProgressMessage(
        id=f"{attempt}-0", job_id="j", attempt=attempt, seq=seq, progress=Progress(current=seq)
    )


def test_bookmark_lets_each_entry_pass_once() -> None:
    bookmark = Bookmark()
    seen = [bookmark.accept(output(cursor)) for cursor in ("1-1", "1-2", "1-1", "1-2", "1-3")]
    assert seen == [True, True, False, False, True]
    assert bookmark.cursor == Cursor(1, 3)


def test_bookmark_begins_after_what_was_seen() -> None:
    bookmark = Bookmark(Cursor(1, 2))
    assert not bookmark.accept(output("1-2"))
    assert bookmark.accept(LogMessage(id="1-3", job_id="j", lines=[]))


def test_bookmark_follows_to_the_next_attempt_and_not_back() -> None:
    bookmark = Bookmark(Cursor(1, 9))
    assert bookmark.accept(output("2-1"))
    assert not bookmark.accept(output("1-10"))


def test_bookmark_moves_with_entries_only() -> None:
    bookmark = Bookmark()
    bookmark.accept(JobMessage(id="1-57", job=view().job))
    assert bookmark.cursor == Cursor(0, 0)


def test_bookmark_drops_older_and_repeated_views() -> None:
    bookmark = Bookmark()
    assert bookmark.accept(view(version=3))
    assert not bookmark.accept(view(version=2))
    assert not bookmark.accept(view(version=3))
    assert bookmark.accept(view(version=3, current=5))
    assert bookmark.accept(view(version=4))


def test_bookmark_drops_older_progress() -> None:
    bookmark = Bookmark()
    assert bookmark.accept(progress(1, 2))
    assert not bookmark.accept(progress(1, 1))
    assert bookmark.accept(view(version=5, attempt=2))
    assert not bookmark.accept(progress(1, 3))
    assert bookmark.accept(progress(2, 1))


def test_bookmark_lets_everything_else_pass() -> None:
    bookmark = Bookmark()
    for message in (
        SubscribedMessage(job_id="j", recovered=True),
        EndMessage(id="1-1-end", job_id="j"),
        PingMessage(),
    ):
        assert bookmark.accept(message)


def test_parse_message_reads_what_it_knows() -> None:
    assert parse_message('{"type":"ping","new_field":1}') == PingMessage()


def test_parse_message_ignores_types_from_the_future() -> None:
    assert parse_message('{"type":"thought","about":"lunch"}') is None


@pytest.mark.parametrize("delay", ["2310", "2310.0"])
def test_parse_message_reads_the_drain_delay(delay: str) -> None:
    assert parse_message(f'{{"type":"drain","reconnect_after_ms":{delay}}}') == Leaving(2.31)


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", "null", '{"type":"log"}', b"\xff"])
def test_parse_message_takes_rubbish_for_a_broken_connection(text: str | bytes) -> None:
    with pytest.raises(Dropped):
        parse_message(text)


def test_target_quotes_the_job_id_and_hides_credentials() -> None:
    target = Target("http://h", "a/b?c", Cursor(0, 0), {"X-API-Key": "secret"})
    assert target.path == "http://h/v1/jobs/a%2Fb%3Fc"
    assert "secret" not in repr(target)


def test_picture_folds_messages_into_the_newest_view() -> None:
    picture = Picture()
    for message in (view(version=2, current=1), progress(1, 5), output("1-1"), output("1-2")):
        picture.apply(message)
    assert picture.view is not None
    assert picture.view.version == 2
    assert picture.view.progress == Progress(current=5)
    assert picture.outputs == {None: "xx"}
    assert not picture.over
    picture.apply(EndMessage(id="1-2-end", job_id="j"))
    assert picture.over


def test_picture_begins_afresh_with_a_new_attempt() -> None:
    picture = Picture()
    line = LogLine(at=MOMENT, text="hello")
    picture.apply(LogMessage(id="1-1", job_id="j", lines=[line]))
    picture.apply(output("1-2"))
    picture.apply(view(version=5, attempt=2))
    assert picture.lines == []
    assert picture.outputs == {}


def test_picture_remembers_that_entries_are_gone() -> None:
    picture = Picture()
    picture.apply(SubscribedMessage(job_id="j", recovered=False))
    picture.apply(SubscribedMessage(job_id="j", recovered=True))
    assert not picture.complete
