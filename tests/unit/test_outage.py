"""An outage as connections hear of it."""

from __future__ import annotations

import pytest

from livejobs_server.push import outage as outage_module
from livejobs_server.push.outage import Outage


def test_listeners_hear_when_an_outage_begins_and_ends() -> None:
    outage, heard = Outage(), []
    outage.listen(listener := lambda: heard.append(outage.lasts))
    outage.end()
    assert (outage.lasts, outage.ended_lately, heard) == (False, False, [])
    outage.begin()
    outage.begin()
    assert (outage.lasts, heard) == (True, [True])
    outage.end()
    outage.end()
    assert (outage.ended_lately, heard) == (True, [True, False])
    outage.forget(listener)
    outage.forget(listener)
    outage.begin()
    assert heard == [True, False]


def test_all_clear_is_given_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "ALL_CLEAR_SECONDS", 0.0)
    outage = Outage()
    outage.begin()
    outage.end()
    assert not outage.ended_lately
