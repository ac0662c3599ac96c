"""The prompts of a batch, checked and kept in a file for the worker, one JSON object a line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from livejobs.settings import Settings
from livejobs.uploads import upload_folder

from .api.fields import Body, Name, Text
from .problems import ApiProblem
from .uploads import TEMPORARY

MAX_CHARACTERS: Final = 200_000
"""Longest prompt."""
MAX_PROMPTS: Final = 100_000

Words = Annotated[Text, Field(min_length=1, max_length=MAX_CHARACTERS)]


class Prompt(Body):
    """A prompt."""

    prompt: Words
    system: Words | None = Field(None, description="In place of the batch's.")
    id: Name | None = Field(None, description="Of your own; its result has it, too.")


def _named(given: Any) -> Any:
    return {"prompt": given} if isinstance(given, str) else given


AnyPrompt = Annotated[Prompt, BeforeValidator(_named, json_schema_input_type=str | Prompt)]
"""A prompt, or only its text."""
_prompt: Final[TypeAdapter[Prompt]] = TypeAdapter(AnyPrompt)


class Kept:
    """A file of prompts in the folder of uploads; gone on `discard`, unless it was kept.

    Attributes:
        total: How many there are.
        size: Of the file, in bytes.
        sha256: Of all of them, hex.
    """

    def __init__(self, prompts: Iterable[Prompt], settings: Settings) -> None:
        folder = upload_folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        self.total = self.size = 0
        self._path = folder / f"{uuid4().hex}{TEMPORARY}"
        self._kept = False
        digest = hashlib.sha256()
        try:
            with self._path.open("xb") as file:
                for prompt in prompts:
                    line = json.dumps(prompt.model_dump(exclude_none=True)).encode() + b"\n"
                    file.write(line)
                    digest.update(line)
                    self.total += 1
                    self.size += len(line)
                    if self.total > MAX_PROMPTS:
                        raise _invalid(f"there are more than {MAX_PROMPTS}")
                file.flush()
                # What was answered with 202 outlives a power cut.
                os.fsync(file.fileno())
            if not self.total:
                raise _invalid("there is none")
        except BaseException:
            self.discard()
            raise
        self.sha256 = digest.hexdigest()

    def keep(self, name: str) -> None:
        """Give the file its final name; from now on it stays."""
        self._path = self._path.rename(self._path.with_name(name))
        self._kept = True

    def discard(self) -> None:
        """Delete the file if it was not kept."""
        if not self._kept:
            self._path.unlink(missing_ok=True)

    def take_back(self) -> None:
        """Delete it though it was kept: nothing came of its batch."""
        self._path.unlink(missing_ok=True)


def lines_of(file: Iterable[bytes]) -> Iterator[Prompt]:
    """The prompts of a JSONL file: on each line a string, or an object with a `prompt`.

    Raises:
        ApiProblem: A line is neither; it says which.
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            yield _prompt.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ", ".join([f"line {number}", *(str(part) for part in first["loc"])])
            raise _invalid(f"{place}: {first['msg']}") from None


@contextlib.contextmanager
def invalid_requests() -> Iterator[None]:
    """Have what pydantic refuses answered as everywhere."""
    try:
        yield
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in errors]
        ) from None


def _invalid(message: str) -> ApiProblem:
    return ApiProblem(
        "invalid_request",
        f"prompts: {message}",
        errors=[{"field": "prompts", "message": message}],
    )
