"""Whose turn it is on the device."""

import threading

import pytest

from worker.turns import Turns


def test_what_is_urgent_goes_first_and_the_rest_in_its_order() -> None:
    turns, gate, done = Turns(), threading.Event(), list[str]()
    running = turns.submit(gate.wait)
    waiting = [turns.submit(lambda name=name: done.append(name), urgent=name in "cd") for name in "abcd"]
    gate.set()
    for future in (running, *waiting):
        future.result(60)
    assert done == ["c", "d", "a", "b"]


def test_a_held_device_begins_nothing_but_what_is_urgent() -> None:
    turns, done = Turns(), list[str]()
    with turns.held():
        bulk = turns.submit(lambda: done.append("bulk"))
        turns.submit(lambda: done.append("urgent"), urgent=True).result(60)
        turns.submit(lambda: done.append("urgent again"), urgent=True).result(60)
        assert not bulk.done()
    bulk.result(60)
    assert done == ["urgent", "urgent again", "bulk"]


def test_whoever_waits_gets_the_error_and_the_device_goes_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError):
        turns.submit(lambda: 1 // 0).result(60)
    assert turns.submit(lambda: 1).result(60) == 1
