"""Mails, by a real mail server over a real connection, and both databases."""

from __future__ import annotations

import mailbox
import uuid
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from livejobs import send_email
from livejobs.database import Database
from livejobs.mails import MailError, address, mails
from livejobs.settings import Settings, configure
from livejobs.transitions import requeue
from livejobs.views import JobView
from livejobs_worker import mail
from livejobs_worker.app import app
from livejobs_worker.letters import compose
from tests.support.mail_server import CUT, PASSWORD, USER, MailServer
from tests.support.rows import change, shown

pytest_plugins = ["tests.support.mail_stack"]

PLAIN: dict[str, Any] = {"subject": "Hello", "text": "How are you?"}
NO = "550 5.1.1 no such mailbox"
LATER = "451 4.7.1 greylisted"
WITHOUT_STARTTLS = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
"""aiosmtpd takes a connection that was encrypted from the first byte for one that is not."""
CLOSING = "421 4.3.2 closing"


class Office:
    """Sends mails as jobs, which run inline, with their retries."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.database = database
        self._given = settings.model_dump()

    def use(self, server: MailServer, scheme: str = "smtp", who: str = "", query: str = "") -> None:
        """Send by this server."""
        self.set(smtp_url=f"{scheme}://{who}127.0.0.1:{server.port}{query}")

    def set(self, **settings: Any) -> None:
        """Change settings."""
        self._given |= {"mail_from": "Us <us@example.com>", **settings}
        configure(**self._given)

    def send(self, *people: str, job_id: str | None = None, **letter: Any) -> JobView:
        """A job that mails each of `people`, when it is over."""
        recipients = [{"to": [each], "context": {"name": each}} for each in people]
        job_id = job_id or uuid.uuid4().hex
        mail.send.apply_async((letter or PLAIN, recipients), task_id=job_id, owner="ada")
        return shown(self.database, job_id)

    def again(self, view: JobView, *people: str) -> JobView:
        """The same, run again as a person asked for it."""
        change(self.database, requeue(view.job_id))
        return self.send(*people, job_id=view.job_id)

    def states(self, view: JobView) -> list[str]:
        """How far the mails of a job are, in their order."""
        with self.database.begin() as connection:
            mine = select(mails.c.state).where(mails.c.job_id == view.job_id)
            return list(connection.execute(mine.order_by(mails.c.ordinal)).scalars())


@pytest.fixture
def office(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    """An office on fresh databases."""
    app.conf.task_always_eager = True
    monkeypatch.setattr(mail, "SLICE", 3)
    yield Office(settings, database)
    app.conf.task_always_eager = False


def lines(part: Any) -> list[str]:
    """The text of a part of a mail."""
    return str(part.get_content()).splitlines()


# -- what goes out ---------------------------------------------------------------------------------


def test_mail_arrives_as_written(office: Office, mail_server: MailServer) -> None:
    office.use(mail_server)
    letter: dict[str, Any] = {
        "subject": "Grüße",
        "text": "Zeile\n.\n..Ende\n",
        "html": "<p>Zeile</p>",
        "cc": ["Bea <bea@example.com>"],
        "bcc": ["cleo@example.com"],
    }
    view = office.send("Ada Löve <ada@exämple.com>", **letter)
    assert (view.status, view.result) == ("completed", {"sent": 1}), view.error
    [envelope], [got] = mail_server.taken, mail_server.mails
    assert envelope.mail_from == "us@example.com"
    assert envelope.rcpt_tos == ["ada@xn--exmple-cua.com", "bea@example.com", "cleo@example.com"]
    assert (got["Subject"], got["From"]) == ("Grüße", "Us <us@example.com>")
    assert got["To"] == "Ada Löve <ada@xn--exmple-cua.com>"
    assert got["Cc"] == "Bea <bea@example.com>"
    assert "cleo" not in got.as_string()
    text, html = got.get_body(("plain",)), got.get_body(("html",))
    assert lines(text) == letter["text"].splitlines()
    assert lines(html) == ["<p>Zeile</p>"]
    assert {"Date", "Message-ID", "MIME-Version"} <= set(got)


def test_batch_goes_over_one_connection(office: Office, mail_server: MailServer) -> None:
    office.use(mail_server)
    people = [f"p{number}@example.com" for number in range(7)]
    assert office.send(*people).status == "completed"
    assert [got["To"] for got in mail_server.mails] == people
    assert mail_server.connections == 1
    assert len({got["Message-ID"] for got in mail_server.mails}) == 7


def test_batch_of_many_has_children_and_counts(office: Office, mail_server: MailServer) -> None:
    office.use(mail_server)
    people = [f"p{number}@example.com" for number in range(8)]
    mail_server.answers["RCPT", people[4]] = [NO]
    letter = {"template": {"subject": "For {{ name }}", "text": "Hi {{ name }}, {{ all }}"}}
    recipients = [{"to": [each], "context": {"name": each[:2]}} for each in people]
    job_id = uuid.uuid4().hex
    everybody = letter | {"context": {"all": "everybody"}}
    mail.send_many.apply_async((everybody, recipients), task_id=job_id)
    view = shown(office.database, job_id)
    assert view.result == {"sent": 7, "refused": 1, "in_doubt": 0, "not_sent": 0}, view.error
    assert view.children.model_dump() == {"total": 3, "completed": 2, "failed": 1, "cancelled": 0}
    assert {got["Subject"] for got in mail_server.mails} == {
        f"For p{number}" for number in range(8) if number != 4
    }
    assert mail_server.mails[0].get_content().strip() == "Hi p0, everybody"


def test_templates_come_from_their_folder(
    office: Office, mail_server: MailServer, tmp_path: Path
) -> None:
    office.use(mail_server)
    office.set(mail_templates=tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "paid.subject.txt").write_text("Paid: {{ what }}\n")
    (tmp_path / "shop" / "paid.txt").write_text("{{ what }}")
    (tmp_path / "shop" / "paid.html").write_text("<b>{{ what }}</b>")
    view = office.send("ada@example.com", template="shop/paid", context={"what": "A&B"})
    assert view.status == "completed", view.error
    [got] = mail_server.mails
    assert got["Subject"] == "Paid: A&B"
    assert lines(got.get_body(("plain",))) == ["A&B"]
    assert lines(got.get_body(("html",))) == ["<b>A&amp;B</b>"]


@pytest.mark.parametrize(
    "template",
    [
        {"subject": "x", "text": "{{ missing }}"},
        {"subject": "x", "text": "{{ ''.__class__.__mro__ }}"},
        {"subject": "x", "text": "{% if %}"},
        {"subject": "x", "text": "{% include '/etc/passwd' %}"},
        {"subject": "a\nBcc: eve@example.com", "text": "x"},
        "../secret",
        "/etc/passwd",
        "absent",
    ],
)
def test_template_that_cannot_be_used_fails_the_job(
    office: Office, mail_server: MailServer, tmp_path: Path, template: Any
) -> None:
    office.use(mail_server)
    office.set(mail_templates=tmp_path / "templates")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.subject.txt").write_text("secret")
    view = office.send("ada@example.com", template=template)
    assert (view.status, view.error.code, view.attempt) == ("failed", "mail_invalid", 1)
    assert mail_server.taken == []


def test_without_a_server_mails_are_written_into_the_data_folder(
    office: Office, settings: Settings
) -> None:
    office.set(smtp_url=None)
    view = office.send("ada@example.com", "bea@example.com")
    assert view.status == "completed", view.error
    folder = mailbox.Maildir(settings.data_dir / "mail", create=False)
    assert sorted(str(got["To"]) for got in folder) == ["ada@example.com", "bea@example.com"]


# -- headers ---------------------------------------------------------------------------------------

HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
}
BREAKS = ["a\nBcc: eve@example.com", "a\r\n\r\nbody", "a\rBcc: x", "a\u2028b", "a\x85b", "a\x0bb"]


@given(st.text(max_size=60) | st.sampled_from(BREAKS), st.text(max_size=60))
def test_no_subject_and_no_name_makes_a_header(subject: str, name: str) -> None:
    letter = {"subject": subject, "text": "the body"}
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    try:
        made = compose(letter, {"to": [f'"{quoted}" <ada@example.com>']}, "<1@example.com>")
    except MailError:
        return
    got: Any = message_from_bytes(made.as_bytes(), policy=default)
    assert set(got.keys()) == HEADERS
    assert [each.addr_spec for each in got["To"].addresses] == ["ada@example.com"]
    assert got.get_content().strip() == "the body"


@pytest.mark.parametrize("subject", BREAKS[:3])
def test_subject_with_a_line_break_is_refused(subject: str) -> None:
    with pytest.raises(MailError) as refused:
        compose({"subject": subject, "text": "x"}, {"to": ["ada@example.com"]}, "<1@example.com>")
    assert refused.value.code == "mail_invalid"


@pytest.mark.parametrize(
    "text",
    [
        *("", "ada", "ada@", "@example.com", "ada@example.com, eve@example.com", "a b@example.com"),
        *("ada@example.com\r\nBcc: eve@example.com", "ada@example.com\x00", "<ada@example.com>\n"),
        *("=?utf-8?q?a=0d=0aBcc=3a?= <ada@example.com>", "ada@exa mple.com", "ädä@example.com"),
        *("ada@example.com> NOTIFY=NEVER", "group: ada@example.com;", "a" * 330 + "@example.com"),
    ],
)
def test_text_that_is_not_one_address_is_refused(text: str) -> None:
    with pytest.raises(MailError) as refused:
        address(text)
    assert refused.value.code == "mail_invalid"


async def test_send_email_says_at_once_what_cannot_be_sent() -> None:
    plain: dict[str, Any] = {"text": "x"}
    for to, more in [
        ("ada@example.com", {**plain}),
        ("ada@example.com", {"subject": "x"}),
        ("ada@example.com", {"subject": "x", "template": "y", **plain}),
        ("ada@example.com\nBcc: eve@example.com", {"subject": "x", **plain}),
        ("ada@example.com", {"subject": "x\ny", **plain}),
        (None, {"subject": "x", **plain}),
        (None, {"subject": "x", "recipients": [], **plain}),
        ("ada@example.com", {"subject": "x", "recipients": [{"to": "b@example.com"}], **plain}),
        (None, {"subject": "x", "cc": "c@x.y", "recipients": [{"to": "b@x.y"}] * 2, **plain}),
    ]:
        with pytest.raises(MailError):
            await send_email(to, **more)


async def test_send_email_makes_a_job(office: Office, mail_server: MailServer) -> None:
    office.use(mail_server)
    view = await send_email("ada@example.com", app=app, owner="ada", **PLAIN)
    assert (view.status, view.task, view.owner) == ("completed", "mail.send", "ada")
    many = [{"to": "bea@example.com"}, {"to": ["cleo@example.com"]}]
    view = await send_email(recipients=many, app=app, **PLAIN)  # type: ignore[arg-type]
    assert shown(office.database, view.job_id).result["sent"] == 2
    assert len(mail_server.taken) == 3


# -- the connection --------------------------------------------------------------------------------


@WITHOUT_STARTTLS
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_connection_is_encrypted_and_signed_in(
    office: Office, certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    with MailServer(certificate, starttls=scheme == "smtp", auth=True) as server:
        office.use(server, scheme, f"{USER}:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@")
        view = office.send("ada@example.com")
        assert view.status == "completed", view.error
    assert server.encrypted == [True]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_certificate_that_is_not_trusted_is_not_talked_to(
    office: Office, certificate: Path, scheme: str
) -> None:
    with MailServer(certificate, starttls=scheme == "smtp") as server:
        office.use(server, scheme)
        view = office.send("ada@example.com")
    assert (view.status, view.error.code) == ("failed", "mail_server_away")
    assert server.taken == []


@WITHOUT_STARTTLS
def test_wrong_password_fails_without_a_retry_and_is_no_fault_of_the_mail(
    office: Office, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    with MailServer(certificate, auth=True) as server:
        office.use(server, "smtps", f"{USER}:wrong@")
        view = office.send("ada@example.com", "bea@example.com")
        assert (view.status, view.error.code) == ("failed", "mail_server_unusable")
        assert view.attempt == 1
        assert office.states(view) == ["waiting"]
    assert "wrong" not in str(view.error.model_dump())


def test_password_does_not_go_to_a_strange_host_in_clear_text(
    office: Office, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livejobs_worker.post.LOOPBACK", ())
    office.use(mail_server, who=f"{USER}:{USER}@")
    view = office.send("ada@example.com")
    assert (view.status, view.error.code) == ("failed", "mail_server_unusable")
    assert "STARTTLS" in view.error.message
    office.use(mail_server, query="?starttls=no")
    assert office.send("ada@example.com").status == "completed"


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["RCPT", "DATA"])
def test_permanent_refusal_fails_at_once_and_others_go_out(
    office: Office, mail_server: MailServer, when: str
) -> None:
    office.use(mail_server)
    mail_server.answers[when, "bea@example.com"] = [NO, NO]
    people = ("ada@example.com", "bea@example.com", "cleo@example.com")
    view = office.send(*people)
    assert (view.status, view.attempt, view.error.code) == ("failed", 1, "mail_refused")
    assert "no such mailbox" in view.error.message
    assert office.states(view) == ["sent", "refused", "sent"]
    view = office.again(view, *people)
    assert view.status == "failed"
    view = office.again(view, *people)
    assert (view.status, office.states(view)) == ("completed", ["sent"] * 3)
    assert [got["To"] for got in mail_server.mails] == [people[0], people[2], people[1]]


@pytest.mark.parametrize(
    ("when", "answer"),
    [("RCPT", LATER), ("RCPT", CLOSING), ("RCPT", CUT), ("DATA", LATER), ("DATA", CLOSING)],
)
def test_passing_refusal_is_retried_and_nothing_goes_out_twice(
    office: Office, mail_server: MailServer, when: str, answer: str
) -> None:
    office.use(mail_server)
    mail_server.answers[when, "bea@example.com"] = [answer, answer]
    people = ("ada@example.com", "bea@example.com", "cleo@example.com")
    view = office.send(*people)
    assert (view.status, view.attempt) == ("completed", 3), view.error
    assert sorted(got["To"] for got in mail_server.mails) == sorted(people)
    assert office.states(view) == ["sent"] * 3


def test_server_that_is_away_is_tried_again(office: Office, mail_server: MailServer) -> None:
    office.set(smtp_url="smtp://127.0.0.1:9")
    view = office.send("ada@example.com")
    assert (view.status, view.error.code) == ("failed", "mail_server_away")
    assert view.attempt == mail.RETRIES + 1
    office.use(mail_server)
    assert office.again(view, "ada@example.com").status == "completed"


@pytest.mark.parametrize("taken", [True, False])
def test_mail_whose_answer_was_cut_off_waits_for_a_person(
    office: Office, mail_server: MailServer, taken: bool
) -> None:
    office.use(mail_server)
    mail_server.answers["DATA", "bea@example.com"] = [CUT]
    if taken:
        mail_server.take_then_cut.add("bea@example.com")
    people = ("ada@example.com", "bea@example.com", "cleo@example.com")
    view = office.send(*people)
    assert (view.status, view.attempt, view.error.code) == ("failed", 1, "mail_in_doubt")
    assert office.states(view) == ["sent", "sending", "sent"]
    assert len(mail_server.taken) == 2 + taken
    view = office.again(view, *people)
    assert (view.status, office.states(view)) == ("completed", ["sent"] * 3)
    assert len({got["Message-ID"] for got in mail_server.mails}) == 3
