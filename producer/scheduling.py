"""Which job gets the next place in a queue, as a pure function over numbers.

The highest class of priority goes first. Within a class owners share by their weights, and each owner's jobs share
what is his, by start-time fair queueing (Goyal, Vin and Cheng, 1996): everybody has a virtual time, which each batch
moves on by its cost over his weight, and whoever's is least is next. Who comes anew, or back, starts at the time of
those who were there, so that nobody is paid for having been away and nobody waits for what others had before.

A job that got nothing for long rises a class for each ``AGEING_SECONDS``, at most to high: then its owner's virtual
time is the least there, and it gets a batch.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from farm.priorities import PriorityClass, class_of

#: A job that got no batch for so long rises a class, and another for each further time.
AGEING_SECONDS = 1800.0
#: So many batches of a new job may go before the line of its class, while nobody in it has had less.
FIRST_BATCHES = 4


Name = TypeVar("Name", int, str)


@dataclass(frozen=True, slots=True)
class JobLoad:
    """What scheduling needs to know of a job that has batches ready for a queue."""

    job_id: int
    owner: str
    priority: int
    ready: int
    """Batches that could go now (counted up to the places of the queue)."""
    queued: int = 0
    running: int = 0
    """Batches that are on their way, in all its stages."""
    max_devices: int | None = None
    """At most so many of its batches may be on their way."""
    weight: float = 1.0
    """Its owner's."""
    cost: float = 1.0
    """Work of one of its batches, in any unit that all jobs share."""
    age_seconds: float = 0.0
    """Since it could have begun."""

    @property
    def active(self) -> int:
        """Batches on their way."""
        return self.queued + self.running

    @property
    def room(self) -> int:
        """Batches that it may have more."""
        return self.ready if self.max_devices is None else min(self.ready, max(self.max_devices - self.active, 0))


@dataclass(frozen=True, slots=True)
class Order:
    """The next batch of a job is to be sent."""

    job_id: int
    priority_class: PriorityClass
    """That in which it goes, by ageing perhaps a higher one than its job's."""
    first: bool
    """Whether it goes before the line of its class."""


@dataclass
class Ledger:
    """What one queue's scheduling remembers from round to round. Lost with the leader, it is begun anew, all equal."""

    owners: dict[str, float] = field(default_factory=dict)
    """Virtual time of each owner."""
    jobs: dict[int, float] = field(default_factory=dict)
    """Virtual time of each job, among its owner's."""
    served: Counter[int] = field(default_factory=Counter)
    """Batches of each job that were sent."""
    served_at: dict[int, float] = field(default_factory=dict)
    """When a job last got one, or could have begun."""
    _present: frozenset[int | str] = frozenset()
    """Jobs and owners that had something ready in the last round."""

    def enter(self, jobs: Sequence[JobLoad], now: float) -> None:
        """Let those that come anew start at the time of those that were there before."""
        of_owner: dict[str, set[int]] = defaultdict(set)
        for job in jobs:
            of_owner[job.owner].add(job.job_id)
            if job.job_id not in self.served_at:
                self.served_at[job.job_id] = now if job.active else now - job.age_seconds
                # One that is under way when this leader first sees it is not new.
                self.served[job.job_id] = FIRST_BATCHES if job.active else 0
        self._join(self.owners, of_owner.keys())
        for own in of_owner.values():
            self._join(self.jobs, own)
        self._present = frozenset((*of_owner, *(job.job_id for job in jobs)))

    def charge(self, job: JobLoad, now: float) -> None:
        """A batch of this job was given a place."""
        self.owners[job.owner] += job.cost / job.weight
        self.jobs[job.job_id] += job.cost
        self.served[job.job_id] += 1
        self.served_at[job.job_id] = now

    def forget_all_but(self, job_ids: Collection[int]) -> None:
        """Drop what is remembered of other jobs."""
        for known in (self.jobs, self.served, self.served_at):
            for job_id in known.keys() - job_ids:
                del known[job_id]

    def class_of(self, job: JobLoad, now: float) -> PriorityClass:
        """The class in which a job goes now."""
        own = class_of(job.priority)
        if own >= PriorityClass.HIGH:
            return own
        risen = int((now - self.served_at[job.job_id]) / AGEING_SECONDS)
        return PriorityClass(min(own + risen, PriorityClass.HIGH))

    def _join(self, times: dict[Name, float], names: Collection[Name]) -> None:
        there = [times[name] for name in names if name in self._present]
        start = min(there) if there else max((times[name] for name in names if name in times), default=0.0)
        for name in names:
            times[name] = max(times.get(name, start), start)


def plan(
    jobs: Iterable[JobLoad], capacity: int, queued: Mapping[PriorityClass, int], ledger: Ledger, now: float
) -> list[Order]:
    """The batches that are to be sent to a queue, in their order; the ledger is brought up to date.

    ``capacity`` is how many batches may wait in the line of a class and those above it (interactive ones have as many
    of their own, and so have first batches), ``queued`` are those that wait. ``now`` is in seconds of any clock that
    only goes forward.
    """
    present = [job for job in jobs if job.ready > 0]
    ledger.enter(present, now)
    places = _Places(capacity, queued, sum(job.queued for job in present if ledger.served[job.job_id] <= FIRST_BATCHES))
    classes: dict[PriorityClass, list[JobLoad]] = defaultdict(list)
    for job in present:
        classes[ledger.class_of(job, now)].append(job)
    orders: list[Order] = []
    for priority_class in sorted(classes, reverse=True):
        line = _Line(classes[priority_class], ledger)
        while chosen := line.next():
            is_new = ledger.served[chosen.job_id] < FIRST_BATCHES
            first = is_new and not line.has_had_more(chosen) and places.take_first()
            if not first and not places.take(priority_class):
                line.leave(chosen)
                continue
            ledger.charge(chosen, now)
            line.served(chosen)
            orders.append(Order(chosen.job_id, priority_class, first))
    return orders


class _Places:
    """What a queue has room for."""

    def __init__(self, capacity: int, queued: Mapping[PriorityClass, int], firsts: int) -> None:
        self._capacity = capacity
        self._queued = Counter(dict(queued))
        self._firsts = firsts

    def take(self, priority_class: PriorityClass) -> bool:
        """A place in the line of a class, which those above it fill too; False if there is none."""
        shared = [priority_class] if priority_class is PriorityClass.INTERACTIVE else _bulk_from(priority_class)
        if sum(self._queued[one] for one in shared) >= self._capacity:
            return False
        self._queued[priority_class] += 1
        return True

    def take_first(self) -> bool:
        """A place before the lines; False if there is none."""
        if self._firsts >= self._capacity:
            return False
        self._firsts += 1
        return True


def _bulk_from(priority_class: PriorityClass) -> list[PriorityClass]:
    return [one for one in PriorityClass if priority_class <= one < PriorityClass.INTERACTIVE]


class _Line:
    """The jobs of a class in the order in which they are served."""

    def __init__(self, jobs: Iterable[JobLoad], ledger: Ledger) -> None:
        self._ledger = ledger
        self._room = {job.job_id: job.room for job in jobs}
        self._of_owner: dict[str, list[tuple[int, float, int, JobLoad]]] = defaultdict(list)
        for job in jobs:
            if job.room:
                self._of_owner[job.owner].append(self._rank(job))
        for own in self._of_owner.values():
            heapq.heapify(own)
        #: Least virtual time of the owners, and of each owner's jobs, for whom there was no place.
        self._left_owner = math.inf
        self._left_job: dict[str, float] = defaultdict(lambda: math.inf)
        self._owners = [(ledger.owners[owner], owner) for owner in self._of_owner]
        heapq.heapify(self._owners)

    def next(self) -> JobLoad | None:
        """Who is next; to be followed by ``served`` or ``leave``."""
        return self._of_owner[self._owners[0][1]][0][-1] if self._owners else None

    def has_had_more(self, job: JobLoad) -> bool:
        """Whether the next one's owner, or itself among its owner's, has had more than one who found no place."""
        owner_time, job_time = self._ledger.owners[job.owner], self._ledger.jobs[job.job_id]
        return owner_time > self._left_owner or job_time > self._left_job[job.owner]

    def served(self, job: JobLoad) -> None:
        """The next one got a place."""
        self._room[job.job_id] -= 1
        own = self._of_owner[job.owner]
        if self._room[job.job_id] > 0:
            heapq.heapreplace(own, self._rank(job))
        else:
            heapq.heappop(own)
        self._turn(job.owner)

    def leave(self, job: JobLoad) -> None:
        """There is no place for the next one."""
        self._left_owner = min(self._left_owner, self._ledger.owners[job.owner])
        self._left_job[job.owner] = min(self._left_job[job.owner], self._ledger.jobs[job.job_id])
        heapq.heappop(self._of_owner[job.owner])
        self._turn(job.owner)

    def _turn(self, owner: str) -> None:
        if self._of_owner[owner]:
            heapq.heapreplace(self._owners, (self._ledger.owners[owner], owner))
        else:
            heapq.heappop(self._owners)

    def _rank(self, job: JobLoad) -> tuple[int, float, int, JobLoad]:
        """An owner's jobs of a class go by the numbers that he gave them, then by what they had."""
        return (-job.priority, self._ledger.jobs[job.job_id], job.job_id, job)
