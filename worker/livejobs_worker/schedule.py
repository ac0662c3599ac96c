"""What `beat` starts, and when: add an entry of your own here, or to `app.conf.beat_schedule`.

The entries are Celery's: name, task, schedule, and arguments and options as for `apply_async`.
Hours are UTC's, unless the app has another `timezone`.
"""

from __future__ import annotations

from typing import Any, Final

from celery.schedules import crontab

SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "usage": {"task": "usage.flush", "schedule": 300.0},
    "cleanup": {"task": "livejobs.cleanup", "schedule": crontab(hour=3, minute=0)},
}
