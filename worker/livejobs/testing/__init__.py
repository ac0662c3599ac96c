"""For the tests of apps that use livejobs; nothing here needs a database, Redis or a broker.

::

    from livejobs.testing import assert_enqueued, enqueued, run

    def test_import():
        view, entries = run(import_file, ["a.csv"])
        assert view.status == "completed"

    def test_order_starts_the_import():
        with enqueued():
            place_order("bread")
            assert_enqueued(import_file, ["bread.csv"])
"""

from .enqueued import Enqueued, EnqueuedJob, assert_enqueued, enqueued
from .inline import Run, eager, run
from .recorder import Recorder, recording

__all__ = [
    "Enqueued",
    "EnqueuedJob",
    "Recorder",
    "Run",
    "assert_enqueued",
    "eager",
    "enqueued",
    "recording",
    "run",
]
