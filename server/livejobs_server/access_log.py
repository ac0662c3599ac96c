"""Keeps tickets out of uvicorn's logs, which name the URL of every request and WebSocket."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

_TICKET: Final = re.compile(r"([?&;](?:ticket|token)=)[^&;\s\"']*", re.IGNORECASE)
_LOGGERS: Final = ("uvicorn.access", "uvicorn.error")


class TicketFilter(logging.Filter):
    """Blanks out the value of `ticket=` in what a record says."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its ticket."""
        record.msg = _blank(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_blank(value) for value in record.args)
        return True


def _blank(value: Any) -> Any:
    return _TICKET.sub(r"\1***", value) if isinstance(value, str) else value


def hide_tickets() -> None:
    """Put the filter on uvicorn's loggers; once is enough, more do no harm."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, TicketFilter) for known in logger.filters):
            logger.addFilter(TicketFilter())
