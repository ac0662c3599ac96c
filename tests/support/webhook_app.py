"""The tasks of the built-in worker that webhooks are about, for workers that tests let die."""

from livejobs_worker.app import app
from livejobs_worker.demo_tasks import count
from livejobs_worker.webhooks import send

__all__ = ["app", "count", "send"]
