"""Classes of priority, and how their messages are ordered in the broker.

A job's priority is a number from 0 to 100; what counts of it is its class. A higher class goes first, within a class
owners and jobs share fairly (``producer/scheduling.py``).
"""

from enum import IntEnum
from typing import Literal


class PriorityClass(IntEnum):
    """What a job's priority means; the higher one goes first."""

    IDLE = 0
    """For what nothing else wants."""
    LOW = 1
    NORMAL = 2
    HIGH = 3
    INTERACTIVE = 4
    """Somebody waits for it: it overtakes all others, and shares calls between jobs."""


#: Least priority of each class.
LEAST = {
    PriorityClass.INTERACTIVE: 100,
    PriorityClass.HIGH: 70,
    PriorityClass.NORMAL: 40,
    PriorityClass.LOW: 10,
    PriorityClass.IDLE: 0,
}
#: What a class stands for where a number is expected.
NUMBERS = {"idle": 0, "low": 25, "normal": 50, "high": 80, "interactive": 100}


ClassName = Literal["idle", "low", "normal", "high", "interactive"]


def class_of(priority: int) -> PriorityClass:
    """The class of a job's priority."""
    return next(one for one, least in LEAST.items() if priority >= least)


def read_priority(value: object) -> object:
    """A class's name as its number; anything else as it is."""
    return NUMBERS.get(value.strip().lower(), value) if isinstance(value, str) else value


def message_priority(priority_class: PriorityClass, *, first: bool = False) -> int:
    """Which of a queue's lists a message goes to: 0 for interactive ones, and two for each other class, down to 9.

    ``first`` is for those that go before the line of their class.
    """
    if priority_class is PriorityClass.INTERACTIVE:
        return 0
    return 2 * (PriorityClass.INTERACTIVE - priority_class) + (0 if first else 1)


#: The lists of each queue in the order in which workers read them.
INTERACTIVE_MESSAGE = message_priority(PriorityClass.INTERACTIVE)
BULK_MESSAGES = tuple(range(message_priority(PriorityClass.HIGH, first=True), 10))
