"""What the REST endpoints answer, beside `JobView`."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import Field

from livejobs.usage import BatchStatus
from livejobs.views import JobError, JobView, LogMessage, OutputMessage, Status, Time, Wire

Entry = Annotated[LogMessage | OutputMessage, Field(discriminator="type")]


def _is_none(value: object) -> bool:
    return value is None


class Accepted(Wire):
    """A job that was accepted."""

    job_id: str
    status: Status
    token: str | None = Field(
        None,
        description="For a browser: good for this job only. Null where the server has no secret.",
    )


class AcceptedFile(Accepted):
    """A file that was accepted, and its job."""

    name: str = Field(description="The file's name.")


class AcceptedFiles(Wire):
    """The jobs of an upload, in the order of its files."""

    jobs: list[AcceptedFile]


class AcceptedBatch(Accepted):
    """A batch of prompts that was accepted."""

    prompts: int = Field(description="How many there are.")


class AcceptedDocuments(Accepted):
    """Files that were accepted; the job has a child for each."""

    files: int = Field(description="How many there are.")


class Webhook(Wire):
    """Who is told of the ends of an owner's jobs that name no other."""

    owner: str
    url: str
    created_at: Time
    changed_at: Time
    disabled_at: Time | None = Field(
        description="When its receiver answered 410; set it again to enable it."
    )


class WebhookSecret(Wire):
    """What an owner's receivers verify webhooks with."""

    owner: str
    secret: str = Field(description="As Standard Webhooks has them: whsec_…")


class WebhookTry(Wire):
    """A try to send a webhook."""

    at: Time = Field(description="When it ended.")
    status_code: int | None = Field(description="Of the receiver's answer; null: there was none.")
    error: str | None = Field(description="What was wrong.")


class WebhookDelivery(Wire):
    """A job that tells of another one's end."""

    job_id: str = Field(description="Of the job that sends it.")
    webhook_id: str = Field(description="What the receiver knows it by.")
    type: str = Field(description="Of the event, like `job.completed`.")
    host: str = Field(description="Of the receiver.")
    status: Status = Field(description="`completed`: the receiver has it.")
    tries: list[WebhookTry] = Field(description="The oldest first.")
    next_try_at: Time | None
    created_at: Time
    completed_at: Time | None


class WebhookDeliveries(Wire):
    """What tells of a job's ends, the newest first."""

    items: list[WebhookDelivery]


class ChildResult(Wire):
    """What came of a child, or of a job that has none."""

    n: int | None = Field(description="The how manieth of its job's children, from 0.")
    job_id: str
    status: Status
    result: Any = None
    error: JobError | None = None


class ResultPage(Wire):
    """Results in the order of the children."""

    items: list[ChildResult]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class JobAnswer(JobView):
    """A job, with the entries after a cursor where that was asked for."""

    entries: list[Entry] | None = Field(
        None, exclude_if=_is_none, description="Entries after `after`, of the present attempt."
    )
    recovered: bool | None = Field(
        None,
        exclude_if=_is_none,
        description="False: some entries after the cursor are gone for good.",
    )


class JobPage(Wire):
    """Jobs, the newest first."""

    items: list[JobView]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class EntryPage(Wire):
    """Entries in their order."""

    items: list[Entry]
    next: str | None = Field(None, description="`after` of the next page; null: no more by now.")


class TimelineEvent(Wire):
    """Something that happened to a job."""

    at: Time
    kind: str
    attempt: int
    detail: dict[str, Any] | None = None


class TimelinePage(Wire):
    """A job's timeline, the oldest first."""

    items: list[TimelineEvent]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class Reason(Wire):
    """Why a job is where it is."""

    job_id: str
    status: Status
    reason: str = Field(description="One sentence, for people.")


class Stack(Wire):
    """Where the code of a running job stands."""

    job_id: str
    worker: str = Field(description="Celery's name of the worker.")
    pid: int = Field(description="The process that runs it, on the worker's host.")
    stack: str = Field(description="As Python writes it, the newest call last.")


class Token(Wire):
    """A signed token."""

    token: str
    expires_at: Time


class NewTicket(Wire):
    """A ticket for one use."""

    ticket: str = Field(description="For a URL: `?ticket=…`.")
    expires_at: Time


class Session(Wire):
    """Somebody signed in to the pages."""

    owner: str
    scopes: list[str]
    expires_at: Time


class SearchHit(Wire):
    """A piece of a document."""

    document_id: str
    name: str
    page: int | None = Field(description="From 1; null where the kind has no pages.")
    ordinal: int = Field(description="The piece's place in the document, from 0.")
    snippet: str = Field(description="HTML: escaped text, each word found within `<mark>`.")
    score: float = Field(description="Larger is better; it compares only within one answer.")


class SearchAnswer(Wire):
    """What was found, the best first."""

    items: list[SearchHit]


class UsageDay(Wire):
    """What a customer used of a meter on a day in UTC; sums of values, but for `events`."""

    day: date
    owner: str
    customer: str
    meter: str
    events: int = Field(description="How many usages were recorded.")
    recorded: int = Field(description="All of them; what the others add up to.")
    pending: int = Field(description="Still to be sent to Stripe.")
    sent: int = Field(description="Stripe has it.")
    failed: int = Field(description="Stripe refused it.")
    held: int = Field(description="It may have arrived or not; a person has to decide.")
    too_old: int = Field(description="Not sent while Stripe would have taken it.")


class UsagePage(Wire):
    """Sums of usage, the newest day first."""

    items: list[UsageDay]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class UsageBatch(Wire):
    """Usage of a customer, meter and hour, as one meter event of Stripe's."""

    identifier: str = Field(description="The meter event's identifier.")
    owner: str
    customer: str
    meter: str
    value: int = Field(description="The sum.")
    events: int = Field(description="How many usages it holds.")
    at: Time = Field(description="When the last of them was used.")
    status: BatchStatus
    tries: int = Field(description="Calls to Stripe that were begun.")
    in_doubt_since: Time | None = Field(description="The first call that may have arrived.")
    error: str | None = Field(description="What was wrong.")
    created_at: Time
    ended_at: Time | None = Field(description="When it was sent, refused or put aside.")


class UsageBatchPage(Wire):
    """Batches of usage, the newest first."""

    items: list[UsageBatch]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class Document(Wire):
    """A document that a search finds."""

    document_id: str
    name: str
    owner: str = Field(description="Empty: nobody's.")
    title: str
    media_type: str
    size: int = Field(description="Of the file, in bytes.")
    pages: int | None = Field(description="Null where the kind has no pages.")
    chunks: int = Field(description="Pieces that it was cut into.")
    language: str | None = Field(description="Null: words are found as they are, in no language.")
    job_id: str | None = Field(description="The job that ingested it last.")
    created_at: Time
    updated_at: Time


class DocumentPage(Wire):
    """Documents by name."""

    items: list[Document]
    next: str | None = Field(None, description="`page` of the next page; null: this is the last.")


class ScheduleEntry(Wire):
    """Something that beat starts again and again."""

    app: str = Field(description="Name of the Celery app whose schedule has it.")
    name: str
    task: str
    schedule: str = Field(description="`every 300 s`, or the five fields of a crontab.")
    last_run_at: Time = Field(description="Before the first run: when beat saw the entry first.")
    next_run_at: Time


class Schedule(Wire):
    """The schedules of all beats."""

    items: list[ScheduleEntry]


class Health(Wire):
    """The process is alive."""

    status: str = "ok"


class Readiness(Wire):
    """Whether the server can do its work."""

    status: str = Field(description="ready or not_ready.")
    parts: dict[str, str] = Field(description="Each part: `ok`, or what is wrong with it.")
