"""What a running job holds until a reporter takes it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from livejobs import running
from livejobs.errors import JobCancelled, JobLost
from livejobs.pieces import MAX_LINE_CHARACTERS
from livejobs.running import RunningJob
from livejobs.task import current_job


@pytest.fixture
def job() -> RunningJob:
    """A job nobody listens to."""
    return RunningJob("job-1", 1, "worker-1")


def progress_of(job: RunningJob) -> dict[str, Any]:
    _, report = job.take()
    assert report is not None
    shown: dict[str, Any] = json.loads(report.json)
    return shown


def bodies(job: RunningJob) -> list[dict[str, Any]]:
    entries, _ = job.take()
    return [json.loads("{" + entry.body) | {"kind": entry.kind, "n": entry.n} for entry in entries]


def test_newest_progress_wins(job: RunningJob) -> None:
    for i in range(100):
        job.progress(i, 100)
    shown = progress_of(job)
    assert (shown["current"], shown["total"], shown["fraction"]) == (99, 100, 0.99)
    _, report = job.take()
    assert report is not None
    assert report.seq == 1


def test_seq_grows_with_each_progress_that_is_taken(job: RunningJob) -> None:
    seqs = []
    for i in range(3):
        job.progress(i)
        _, report = job.take()
        assert report is not None
        seqs.append(report.seq)
    assert seqs == [1, 2, 3]


def test_total_may_be_unknown(job: RunningJob) -> None:
    job.progress(5, message="five")
    shown = progress_of(job)
    assert (shown["total"], shown["fraction"], shown["eta_seconds"]) == (None, None, None)
    assert shown["message"] == "five"


def test_stage_and_current_stay_until_they_are_told_anew(job: RunningJob) -> None:
    job.progress(5, 10, stage="parse")
    job.take()
    job.progress(message="still parsing")
    shown = progress_of(job)
    assert (shown["current"], shown["stage"], shown["message"]) == (5, "parse", "still parsing")


def test_progress_beyond_its_total_is_full(job: RunningJob) -> None:
    job.progress(12, 10)
    assert progress_of(job)["fraction"] == 1.0
    job.progress(-1, 10)
    assert progress_of(job)["fraction"] == 0.0


@pytest.mark.parametrize("current", [float("nan"), float("inf"), "many", object(), [1]])
def test_progress_that_is_no_number_is_left_out(
    job: RunningJob, current: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job.progress(1, 2)
    job.take()
    with caplog.at_level(logging.WARNING):
        job.progress(current, 2)
        assert progress_of(job)["current"] == 1
    assert "cannot be shown" in caplog.text


def test_other_data_is_shown_up_to_four_kilobytes(job: RunningJob) -> None:
    job.progress(1, extra={"a": (1, 2)}, nan=float("nan"))
    assert progress_of(job)["data"] == {"extra": {"a": [1, 2]}, "nan": None}
    job.progress(2, extra="x" * 5000)
    assert progress_of(job)["data"] == {}


def test_rate_and_time_left(job: RunningJob, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 101.0, 102.0])
    monkeypatch.setattr("livejobs.running.time.monotonic", lambda: next(now))
    job.progress(0, 100)
    assert progress_of(job)["rate"] is None
    job.progress(10, 100)
    shown = progress_of(job)
    assert (shown["rate"], shown["eta_seconds"]) == (10.0, 9.0)
    job.progress(0, 100, stage="next")
    assert progress_of(job)["rate"] is None


def test_rate_is_that_of_the_last_while(job: RunningJob, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("livejobs.running.time.monotonic", lambda: clock[0])
    for second in range(60):
        clock[0] = float(second)
        job.progress(second * 10 if second < 30 else 300 + (second - 30), 1000)
        shown = progress_of(job)
    assert shown["rate"] == 1.0


def test_lines_and_pieces_keep_their_order(job: RunningJob) -> None:
    job.log("one")
    job.log("two", "warning")
    job.output("a")
    job.output("b")
    job.log("three")
    job.output("c", "other")
    job.output("d")
    taken = bodies(job)
    assert [entry["n"] for entry in taken] == [1, 2, 3, 4, 5]
    assert [line["text"] for line in taken[0]["lines"]] == ["one", "two"]
    assert taken[0]["lines"][1]["level"] == "warning"
    assert taken[1]["text"] == "ab"
    assert taken[3] == {"stream": "other", "text": "c", "kind": "output", "n": 4}
    assert taken[4]["text"] == "d"


def test_entries_never_change_and_wait_until_they_are_sent(job: RunningJob) -> None:
    job.log("one")
    first, _ = job.take()
    job.log("two")
    both, _ = job.take()
    assert both[0] is first[0]
    job.sent(both[:1], None)
    left, _ = job.take()
    assert [entry.n for entry in left] == [2]
    assert job.has_unsent


def test_entries_wait_for_the_database_on_their_own(job: RunningJob) -> None:
    job.log("one")
    entries, report = job.take()
    job.sent(entries, report)
    assert not job.has_unsent
    assert job.has_unsaved
    reported = job.reported()
    assert [entry.n for entry in reported.entries] == [1]
    job.log("two")
    job.take()
    job.saved(reported)
    assert [entry.n for entry in job.reported().entries] == [2]


def test_long_output_becomes_several_entries(job: RunningJob) -> None:
    text = "0123456789" * 20_000
    job.output(text)
    taken = bodies(job)
    assert len(taken) == 4
    assert "".join(entry["text"] for entry in taken) == text


def test_what_does_not_fit_is_dropped_and_said_so(
    job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_BUFFER_BYTES", 1000)
    for _ in range(300):
        job.log("x" * 10)
    lines = [line["text"] for entry in bodies(job) for line in entry["lines"]]
    assert len(lines) == 101
    assert lines[-1].startswith("200 reports were dropped")


def test_numbering_waits_for_the_database_so_that_memory_is_bounded(
    job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_BUFFER_BYTES", 1000)
    for _ in range(50):
        job.output("y" * 100)
        job.take()
    assert job.last_n < 15
    job.output("last")
    everything, _ = job.take(everything=True)
    assert "dropped" in everything[-1].body


def test_redis_away_keeps_no_more_than_a_bound(
    job: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(100):
        job.log(f"line {i}")
        job.take()
    monkeypatch.setattr(running, "MAX_BUFFER_BYTES", 1000)
    job.not_sent()
    kept, _ = job.take()
    assert kept[-1].n == 100
    assert len(kept) < 20
    assert len(job.reported().entries) == 100


def test_text_that_no_database_takes_is_made_storable(job: RunningJob) -> None:
    job.log("a\0b\ud800c")
    job.output("d\0")
    lines, output = bodies(job)
    assert lines["lines"][0]["text"] == "a�b�c"
    assert output["text"] == "d�"


def test_report_that_cannot_be_text_raises_nothing(
    job: RunningJob, caplog: pytest.LogCaptureFixture
) -> None:
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("no")

    job.log(Awkward())  # type: ignore[arg-type]
    job.output(Awkward())  # type: ignore[arg-type]
    assert bodies(job) == []
    assert "no text" in caplog.text


def test_first_report_after_rest_wakes_the_reporter(job: RunningJob) -> None:
    woken: list[int] = []
    job.listen(lambda: woken.append(1))
    job.progress(1)
    job.rest(quiet=False)
    job.progress(2)
    job.log("line")
    job.rest(quiet=True)
    job.output("piece")
    assert len(woken) == 2


def test_track_reports_each_item(job: RunningJob) -> None:
    seen = []
    for item in job.track(["a", "b"], stage="work"):
        seen.append((item, progress_of(job)["current"]))
    assert seen == [("a", 0), ("b", 1)]
    shown = progress_of(job)
    assert (shown["current"], shown["total"], shown["stage"]) == (2, 2, "work")


def test_track_takes_what_has_no_length(job: RunningJob) -> None:
    assert list(job.track(iter("abc"))) == ["a", "b", "c"]
    assert progress_of(job)["total"] is None
    assert list(job.track((c for c in "abc"), total=3)) == ["a", "b", "c"]
    assert progress_of(job)["fraction"] == 1.0


def test_track_ends_where_the_job_should_not_go_on(job: RunningJob) -> None:
    def items() -> Any:
        yield 1
        job.cancel_requested = True
        yield 2

    with pytest.raises(JobCancelled) as cancelled:
        list(job.track(items()))
    assert cancelled.value.job_id == "job-1"
    assert not isinstance(cancelled.value, Exception)
    job.lost = True
    with pytest.raises(JobLost):
        job.check()


@pytest.mark.parametrize(
    ("lost", "at_report", "error"),
    [(True, False, JobLost), (False, True, JobCancelled), (True, True, JobLost)],
)
def test_report_tells_each_thread_once_that_the_task_is_to_stop(
    lost: bool, at_report: bool, error: type[BaseException]
) -> None:
    job = RunningJob("job-1", 1, "worker-1", cancel_at_report=at_report)
    job.progress(1, 2)
    job.lost, job.cancel_requested = lost, True
    with pytest.raises(error):
        job.progress(2, 2)
    job.log("cleaning up")
    told: list[type[BaseException]] = []

    def elsewhere() -> None:
        try:
            job.output("piece")
        except BaseException as interrupt:
            told.append(type(interrupt))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told == [error]
    with pytest.raises(error):
        job.check()


def test_report_after_a_cancel_request_goes_on_unless_it_is_set_otherwise(job: RunningJob) -> None:
    job.cancel_requested = True
    job.progress(1, 2)
    job.log("going on")
    with pytest.raises(JobCancelled):
        job.check()
    job.log("cleaning up")


def test_current_job_outside_of_a_job_goes_nowhere() -> None:
    job = current_job()
    job.progress(1, 2)
    job.log("hello")
    assert list(job.track([1, 2])) == [1, 2]
    assert job.id == ""


class SlowNumber:
    """A number that takes a while to be read, as one that a database computes."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def __float__(self) -> float:
        self.asked.set()
        assert self.release.wait(10)
        return 100.0


def test_last_take_waits_for_progress_that_another_thread_takes(job: RunningJob) -> None:
    job.progress(99, 100)
    job.take()
    slow = SlowNumber()
    job.progress(slow, 100)  # type: ignore[arg-type]
    sender = threading.Thread(target=job.take)
    sender.start()
    assert slow.asked.wait(10)
    threading.Timer(0.05, slow.release.set).start()
    job.take(everything=True)
    last = job.reported()
    sender.join()
    assert last.progress is not None
    assert (last.progress["current"], last.seq) == (100, 2)


def test_one_huge_output_is_cut_to_the_room_and_delays_nobody(job: RunningJob) -> None:
    began = time.monotonic()
    job.output("x" * (60 * 1024 * 1024))
    taker = threading.Thread(target=job.take)
    taker.start()
    job.log("meanwhile")
    taker.join()
    assert time.monotonic() - began < 2
    shown = bodies(job)
    assert sum(len(b["text"]) for b in shown if b["kind"] == "output") == running.MAX_BUFFER_BYTES
    text = [line["text"] for b in shown if b["kind"] == "log" for line in b["lines"]]
    assert any("reports were dropped" in line for line in text)


def test_huge_line_takes_the_room_of_what_is_shown_of_it(job: RunningJob) -> None:
    job.log("x" * running.MAX_BUFFER_BYTES * 2)
    job.log("next")
    lines = [line["text"] for body in bodies(job) for line in body["lines"]]
    assert [len(line) for line in lines] == [MAX_LINE_CHARACTERS, 4]


class Changing(dict[str, int]):
    """Changes while it is read, as often as it is told."""

    def __init__(self, times: int) -> None:
        super().__init__(a=1)
        self.times = times

    def items(self) -> Iterator[tuple[str, int]]:  # type: ignore[override]
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("dictionary changed size during iteration")
        return iter([("a", 1)])


@pytest.mark.parametrize(("times", "data"), [(2, {"counts": {"a": 1}}), (10**6, {})])
def test_data_that_changes_while_it_is_read_does_not_take_the_numbers_away(
    job: RunningJob, times: int, data: dict[str, Any]
) -> None:
    job.progress(7, 10, counts=Changing(times))
    shown = progress_of(job)
    assert (shown["current"], shown["data"]) == (7, data)


def test_data_that_cannot_be_shown_does_not_take_the_numbers_away(job: RunningJob) -> None:
    job.progress(7, 10, handle=object())
    shown = progress_of(job)
    assert (shown["current"], shown["data"]) == (7, {})
