"""Numbers as Prometheus reads them: what there are, and their text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

GAUGE: Final = GaugeMetricFamily
COUNTER: Final = CounterMetricFamily


class Family(NamedTuple):
    """One kind of number.

    Attributes:
        kind: How it behaves.
        meaning: What it is, for people.
        labels: What tells its samples apart, beside the process.
        of_process: Each process has its own.
    """

    kind: type[GaugeMetricFamily] | type[CounterMetricFamily]
    meaning: str
    labels: tuple[str, ...] = ()
    of_process: bool = True


class Sample(NamedTuple):
    """A number of one process."""

    family: str
    labels: tuple[str, ...]
    value: float


FAMILIES: Final = {
    "viewers": Family(GAUGE, "Connections of viewers now.", ("transport",)),
    "deliveries": Family(COUNTER, "Messages handed to viewers.", ("transport",)),
    "watched_jobs": Family(GAUGE, "Jobs that somebody watches now."),
    "lagging_viewers": Family(GAUGE, "Viewers now that take nothing: their buffers are full."),
    "buffered_bytes": Family(GAUGE, "What waits for viewers now."),
    "coalesced": Family(COUNTER, "Messages that a lagging viewer was spared; it gets the newest."),
    "stalled": Family(COUNTER, "Viewers closed since they took nothing for too long."),
    "crowded_out": Family(COUNTER, "Viewers closed since all buffers together were too large."),
    "refused": Family(COUNTER, "Connections that were not let in.", ("reason",)),
    "fanouts": Family(COUNTER, "Messages told to the viewers of a job."),
    "fanout_seconds": Family(COUNTER, "Time that it took to hand them over."),
    "relay_messages": Family(COUNTER, "Messages that Redis published to this process."),
    "relay_lag_seconds": Family(
        GAUGE, "From sent to Redis to read here, behind all that was published before; last seen."
    ),
    "reads": Family(COUNTER, "Reads of jobs for viewers from the database."),
    "read_failures": Family(COUNTER, "Those that could not be answered."),
    "redis_connected": Family(GAUGE, "1: live messages come from Redis."),
    "redis_connects": Family(COUNTER, "Connections to Redis for live messages."),
    "degraded": Family(GAUGE, "1: updates come from the database for now."),
    "leaving": Family(GAUGE, "1: the process goes away."),
    "open_files": Family(GAUGE, "Open files of the process."),
    "open_files_limit": Family(GAUGE, "Most that it may have."),
    "resident_bytes": Family(GAUGE, "Memory of the process."),
    "cpu_seconds": Family(COUNTER, "Processor time of the process."),
    "process_up": Family(GAUGE, "0: the process did not answer the one that was asked."),
    "jobs": Family(GAUGE, "Jobs in the database.", ("status", "queue"), of_process=False),
    "oldest_pending_seconds": Family(
        GAUGE,
        "How long the job has waited that is pending longest, from when it was due.",
        ("queue",),
        of_process=False,
    ),
    "jobs_counted_seconds": Family(
        GAUGE, "How long ago open and finished jobs were counted.", ("which",), of_process=False
    ),
    "database_up": Family(GAUGE, "1: the last count was answered.", of_process=False),
}
"""All numbers; in Prometheus their names begin with ``livejobs_``."""


def exposition(
    by_process: dict[str, list[Sample]], shared: Iterable[Sample], accept: str
) -> tuple[bytes, str]:
    """All numbers as text, and its media type.

    Args:
        by_process: What each process says of itself.
        shared: What is the same for all.
        accept: What the client wants to read.
    """
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    everything = [
        *((sample, (process,)) for process, told in by_process.items() for sample in told),
        *((sample, ()) for sample in shared),
    ]
    for sample, process in everything:
        kind = FAMILIES.get(sample.family)
        if kind is None:
            continue  # Of a process that was started from another version.
        family = families.get(sample.family)
        if family is None:
            labels = [*kind.labels, *(["process"] if kind.of_process else [])]
            made = kind.kind(f"livejobs_{sample.family}", kind.meaning, labels=labels)
            family = families[sample.family] = made
        family.add_metric([*sample.labels, *process], float(sample.value))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(families.values())))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Once(Collector):
    """Families that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families
