"""The cleanup of the built-in worker, and its schedule, for processes that tests let die."""

from livejobs_worker.app import app
from livejobs_worker.cleanup import cleanup

__all__ = ["app", "cleanup"]
