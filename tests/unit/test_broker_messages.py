"""Messages for brokers that are strict about queues, or delay messages themselves: RabbitMQ.

No broker is asked: Celery builds the messages, and nothing sends them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from kombu.entity import Exchange, Queue

from livejobs import JobTask
from livejobs.messages import PRODUCER, declared
from livejobs.recording import JobOptions, build
from livejobs.testing import enqueued


@pytest.fixture
def app() -> Iterator[Any]:
    """An app whose queues have arguments of their own."""
    app = Celery("shop", broker="amqp://127.0.0.1:1//", task_cls=JobTask, set_as_current=False)
    orders = Exchange("orders", type="topic")
    quorum = {"x-queue-type": "quorum"}
    app.conf.task_queues = [
        Queue("urgent", queue_arguments={"x-max-priority": 10}),
        Queue("orders", orders, routing_key="order.#", queue_arguments=quorum),
    ]
    app.conf.task_default_queue = "urgent"

    @app.task(shared=False, name="shop.export")
    def export() -> None:
        pass

    yield app
    app.close()


@pytest.fixture
def stranger() -> Iterator[Celery]:
    """The app of a server, which knows the broker and nothing else."""
    app = Celery(PRODUCER, broker="amqp://127.0.0.1:1//", set_as_current=False)
    yield app
    app.close()


def built(app: Celery, **options: Any) -> Any:
    """A message as its row keeps it."""
    new = build(app, "shop.export", (), {}, JobOptions(), options)
    return json.loads(json.dumps(new.message))


def only(queues: list[Queue]) -> Any:
    """The one queue; kombu's own types leave its arguments out."""
    (queue,) = queues
    return queue


def test_queue_is_declared_elsewhere_as_its_own_app_declares_it(app: Any, stranger: Celery) -> None:
    for name in ("urgent", "orders"):
        queue = only(declared(stranger, built(app, queue=name)))
        own = app.amqp.queues[name]
        assert (queue.name, queue.queue_arguments) == (name, own.queue_arguments)
        assert (queue.exchange.name, queue.exchange.type) == (own.exchange.name, own.exchange.type)
        assert (queue.routing_key, queue.durable) == (own.routing_key, True)


def test_queue_is_declared_as_its_app_knows_it_now(app: Any) -> None:
    message = built(app, queue="urgent")
    app.amqp.queues["urgent"] = Queue("urgent", queue_arguments={"x-max-priority": 5})
    assert only(declared(app, message)).queue_arguments == {"x-max-priority": 5}


def test_message_of_an_earlier_version_declares_what_is_known(stranger: Celery) -> None:
    message = {"queue": "celery", "exchange": "", "routing_key": "celery"}
    assert [queue.name for queue in declared(stranger, message)] == ["celery"]


@pytest.mark.parametrize("option", ["countdown", "eta"])
def test_broker_gets_no_delay_that_the_database_keeps(app: Any, option: str) -> None:
    delay = {"countdown": 60, "eta": datetime.now(UTC) + timedelta(minutes=1)}
    # Celery sends what has a delay to `celery_delayed_27` where it finds a quorum queue.
    app.conf.task_default_queue = "orders"
    new = build(app, "shop.export", (), {}, JobOptions(), {option: delay[option]})
    assert new.delay == pytest.approx(60, abs=5)
    assert (new.queue, new.message["headers"]["eta"]) == ("orders", None)
    with enqueued() as jobs:
        app.tasks["shop.export"].apply_async(**{option: delay[option]})
    assert [(job.queue, round(job.delay, -1)) for job in jobs.jobs] == [("orders", 60)]
