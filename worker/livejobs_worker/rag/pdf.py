"""PDF: the text of each page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pypdf import PageObject, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError, PyPdfError

from livejobs.file_kinds import IngestError

from .pages import DAMAGE, Page, broken, first_line
from .plain import clean

_DAMAGE: Final = (PyPdfError, *DAMAGE)


class PdfPages:
    """The pages of a PDF; it is open while they are read.

    Args:
        path: The file.
        name: What the person calls it.
        after: So many pages are left out.

    Attributes:
        title: As the file states it, None where it does not.
        total: Number of pages.

    Raises:
        IngestError: Protected by a password, or damaged.
    """

    def __init__(self, path: Path, name: str, after: int = 0) -> None:
        self._path = path
        self._name = name
        self._after = after
        with path.open("rb") as file, self._in_words():
            reader = self._open(file)
            self.total = len(reader.pages)
            metadata = reader.metadata
            self.title = first_line(clean((metadata and metadata.title) or ""))

    def __iter__(self) -> Iterator[Page]:
        with self._path.open("rb") as file:
            with self._in_words():
                reader = self._open(file)
            for number in range(self._after + 1, self.total + 1):
                with self._in_words(f"on page {number}"):
                    page = reader.pages[number - 1]
                    _check_size(page)
                    text = clean(page.extract_text())
                yield Page(number, text)
                # It keeps all that it has read, and reads again what is gone.
                reader.resolved_objects.clear()

    def _open(self, file: BinaryIO) -> PdfReader:
        # Given the path, the reader would take the whole file into memory.
        reader = PdfReader(file)
        # Many files that forbid printing or changes open with the empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise self._protected()
        return reader

    @contextlib.contextmanager
    def _in_words(self, where: str = "") -> Iterator[None]:
        """Have what the reader raises told to people."""
        try:
            yield
        except LimitReachedError as error:
            raise IngestError(
                "zip_bomb",
                f"{self._name} unpacks{where and f' {where}'} to more than a page can hold, so it "
                "is not read: save it anew and send that.",
            ) from error
        except (DependencyError, FileNotDecryptedError) as error:
            raise self._protected() from error
        except _DAMAGE as error:
            raise broken(self._name, where) from error

    def _protected(self) -> IngestError:
        return IngestError(
            "encrypted_file",
            f"{self._name} is protected by a password: save it without one and send that.",
        )


def _check_size(page: PageObject) -> None:
    """Raise `LimitReachedError` where `extract_text` would go on without what is too large."""
    try:
        page.get_contents()
    except LimitReachedError:
        raise
    except _DAMAGE:
        return  # of what is only damaged, `extract_text` makes what it can
