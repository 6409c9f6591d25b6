"""A call that comes no further is noticed; one that does, one that has ended, and time without a call are not."""

import threading
from collections.abc import Sequence

import pytest
from running import wait_until

from farm.claims import Claim
from farm.states import Stage
from worker import watchdog as watchdog_module
from worker.watchdog import Watchdog

CLAIM = Claim(1, 1, Stage.BASE, 1, {}, None, None, ())


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "LOOK_SECONDS", 0.01)


def test_a_call_without_a_step_is_told_once() -> None:
    told: list[Sequence[Claim]] = []
    dog = Watchdog(0.2, told.append)
    dog.start()
    with dog.watching([CLAIM]):
        wait_until(lambda: told, "the watchdog")
    assert told == [[CLAIM]]


def test_steps_and_pauses_between_calls_are_no_hang() -> None:
    hung = threading.Event()
    dog = Watchdog(0.3, lambda _claims: hung.set())
    dog.start()
    with dog.watching([CLAIM]):
        for _ in range(10):
            assert not hung.wait(0.06)
            dog.step()
    assert not hung.wait(0.6)
    with dog.watching([CLAIM]):
        assert not hung.wait(0.1)
