"""The short form of `make chaos`: a fixed seed, and everything has to hold in the end.

It knows no times but the generous one in which all has to be over once all parts are back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .plan import plan

ROOT = Path(__file__).resolve().parents[2]
SEED = 3
RUN_SECONDS = 900
"""It bounds itself; this is for a program that hangs."""
CLOSE_SECONDS = 90


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(SEED, 60) == plan(SEED, 60)
    assert plan(SEED, 60).faults != plan(SEED + 1, 60).faults


def test_long_plan_has_all_faults_and_enough_of_them() -> None:
    long = plan(SEED, 20 * 60)
    assert len(long.faults) >= 200
    assert len(long.orders) >= 5000
    kinds = {fault.kind for fault in long.faults}
    assert kinds == {
        *("kill", "restart", "freeze", "child", "flush"),
        *("cut", "slow", "half-open", "late"),
    }


@pytest.mark.long
@pytest.mark.timeout(RUN_SECONDS + CLOSE_SECONDS + 30)
def test_chaos_leaves_the_truth(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", f"--seed={SEED}", "--processes=1"]
    path = os.pathsep.join([f"{ROOT}/worker", f"{ROOT}/server", str(ROOT)])
    output = tmp_path / "report.txt"
    with output.open("wb") as report:
        process = subprocess.Popen(
            [*command, f"--logs={tmp_path / 'logs'}"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            stdout=report,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(RUN_SECONDS)
        finally:
            if process.poll() is None:  # so that it ends what it has started
                process.send_signal(signal.SIGTERM)
                process.wait(CLOSE_SECONDS)
    assert code == 0, output.read_text("utf-8")
