"""The tasks of the built-in worker that mail, for workers that tests let die."""

from livejobs_worker.app import app
from livejobs_worker.mail import report, send, send_many

__all__ = ["app", "report", "send", "send_many"]
