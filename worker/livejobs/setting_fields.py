"""Kinds of fields that settings share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices
from pydantic_settings import NoDecode

Names = Annotated[tuple[str, ...], NoDecode]
"""A list, which the environment has comma separated."""


def env(name: str) -> Any:
    """Both the environment's name and the field's own name set a field."""
    return AliasChoices(name, name.lower().removeprefix("livejobs_"))


def split(value: object) -> object:
    """A comma separated text as its parts; anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def none_if_empty(value: object) -> object:
    """None for "", which a Compose file makes of a variable that is not set."""
    return None if value == "" else value
