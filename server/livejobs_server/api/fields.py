"""Kinds of fields that requests share, and the pages that lists come in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from sqlalchemy import Row
from starlette.requests import HTTPConnection

from livejobs.entries import Cursor
from livejobs.errors import InvalidCursor
from livejobs.views import storable, storable_text
from livejobs.words import LANGUAGES

from ..services import Services, services


async def _server(connection: HTTPConnection) -> Services:
    # FastAPI runs what is not async in a thread.
    return services(connection)


Server = Annotated[Services, Depends(_server)]

MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 50


def _storable_text(text: str) -> str:
    if storable_text(text) != text:
        raise ValueError("it holds a NUL or half a surrogate pair")
    return text


def _storable_json(value: Any) -> Any:
    try:
        kept = storable(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"it cannot be stored: {error}") from error
    # NaN is unequal to everything, also to itself.
    if kept != value:
        raise ValueError("it holds a NUL, half a surrogate pair, NaN or an infinity")
    return value


Text = Annotated[str, AfterValidator(_storable_text)]
"""Text that every database takes."""
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_storable_text)
]
Json = Annotated[Any, AfterValidator(_storable_json)]
"""Any JSON that every database takes."""


def _known_language(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"it is one of {', '.join(LANGUAGES)}")
    return language


Language = Annotated[
    str | None,
    AfterValidator(lambda language: language and _known_language(language)),
    Query(
        description="Of the text, like `english`; by default the server's "
        "`LIVEJOBS_SEARCH_LANGUAGE`.",
        json_schema_extra={"enum": [*LANGUAGES]},
    ),
]

JobIdPath = Annotated[str, Path(min_length=1, description="The job's id.")]
After = Annotated[
    str | None,
    Query(
        max_length=64,
        description="A cursor, `<attempt>-<n>`, as messages carry it.",
        examples=["1-57"],
    ),
]
PageKey = Annotated[str | None, Query(max_length=1024, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items in the page.")]


class Body(BaseModel):
    """A request's body; what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def encode_key(*key: str | int) -> str:
    """The keyset key of a page's last item, opaque to clients."""
    text = json.dumps(key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_key(text: str, *kinds: type) -> list[Any]:
    """What `encode_key` made.

    Raises:
        InvalidCursor: The text is something else.
    """
    try:
        padded = text + "=" * (-len(text) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise InvalidCursor(text) from error
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise InvalidCursor(text)
    if any(isinstance(part, str) and storable_text(part) != part for part in key):
        raise InvalidCursor(text)
    return key


def parse_after(after: str | None) -> Cursor | None:
    """The cursor of a request.

    Raises:
        InvalidCursor: It is none.
    """
    return None if after is None else Cursor.parse(after)


def link_next(request: Request, response: Response, changed: Mapping[str, str]) -> None:
    """Add the ``Link`` to the next page: this one's URL with `changed` parameters."""
    target = request.url.include_query_params(**changed)
    # Relative: behind a proxy this server does not know its own name.
    response.headers["Link"] = f'<{target.path}?{target.query}>; rel="next"'


def next_page(
    rows: Sequence[Row[Any]],
    limit: int,
    key: Callable[[Row[Any]], str],
    request: Request,
    response: Response,
) -> str | None:
    """The key of the next page, which the response links to; None: this is the last.

    Args:
        rows: Of the page, and one more where there is one.
        limit: Most rows of the page.
        key: What tells where a row stands.
    """
    response.headers["Cache-Control"] = "private, no-cache"
    if len(rows) <= limit:
        return None
    following = key(rows[limit - 1])
    link_next(request, response, {"page": following})
    return following
