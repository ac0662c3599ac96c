"""The short form of `make bench`: it measures, and no viewer misses anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..bench.__main__ import main


def test_the_short_bench_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--short", "fanout", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert found["faults"] == []
    if shutil.which("cc") is None:
        assert "There is no C compiler" in capsys.readouterr().out
        return
    [table] = found["tables"]
    assert [row[:2] for row in table["rows"]] == [["livejobs", "WS"], ["livejobs", "SSE"]]
    assert "kB/viewer" in capsys.readouterr().out


def test_the_short_bench_hears_a_neighbour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--short", "neighbour", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert found["faults"] == []
    if shutil.which("cc") is None:
        assert "There is no C compiler" in capsys.readouterr().out
        return
    [table] = found["tables"]
    assert [row[:2] for row in table["rows"]] == [["WS", 0], ["WS", 100], ["SSE", 0], ["SSE", 100]]
