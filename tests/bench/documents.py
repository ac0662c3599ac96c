"""`python -m tests.bench.documents`: the memory that a PDF takes in the worker that ingests it.

Each file is ingested in a process of its own, as the built-in worker would, into a database of its
own. What counts is the highest resident memory of that process, and how much of it is due to the
number of pages.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livejobs.database import migrate
from livejobs.settings import configure
from livejobs.task import track
from tests.files import pdf_file

PAGES = (5, 500)
WORDS_ON_A_PAGE = 450
ROOT = Path(__file__).resolve().parents[2]


def book(pages: int) -> bytes:
    """A PDF with as much text on each page as a book has."""
    dice = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 10))) for _ in range(3000)]
    return pdf_file([" ".join(dice.choices(words, k=WORDS_ON_A_PAGE)) for _ in range(pages)])


def measured(content: bytes, folder: Path) -> dict[str, Any]:
    """Ingest a file in another process; `pages`, `seconds`, `before` and `peak` in kB.

    `before` is the peak up to when the file is opened.
    """
    path = folder / "book.pdf"
    path.write_bytes(content)
    command = [sys.executable, "-m", "tests.bench.documents", "--ingest", str(path)]
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{folder}/bench.db",
        "PYTHONPATH": os.pathsep.join(f"{ROOT}/{name}" for name in ("worker", "server", "")),
    }
    done = subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ingest(path: Path) -> dict[str, Any]:
    from livejobs_worker.rag.ingest import ingest_file

    settings = configure()
    migrate(settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with track("bench.ingest", owner="bench") as job:
        made = ingest_file(path, path.name, "bench", job)
    return {
        "pages": made["pages"],
        "chunks": made["chunks"],
        "seconds": round(time.monotonic() - begun, 1),
        "before": before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ingest", type=Path, help="only ingest this file, and print as JSON")
    arguments = parser.parse_args(given)
    if arguments.ingest is not None:
        print(json.dumps(_ingest(arguments.ingest)))
        return
    for pages in PAGES:
        content = book(pages)
        with tempfile.TemporaryDirectory() as folder:
            found = measured(content, Path(folder))
        print(
            f"{pages:4} pages, {len(content) / 1000:6.0f} kB: peak {found['peak'] / 1000:5.1f} MB, "
            f"{(found['peak'] - found['before']) / 1000:4.1f} MB of it for the file; "
            f"{found['chunks']} chunks in {found['seconds']} s"
        )


if __name__ == "__main__":
    main()
