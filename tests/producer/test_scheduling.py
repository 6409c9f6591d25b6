"""Who gets the next place: properties of the scheduler as a pure function, round after round."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from farm.priorities import PriorityClass, class_of
from producer.scheduling import AGEING_SECONDS, FIRST_BATCHES, JobLoad, Ledger, Order, plan

NORMAL = 50
JOBS = st.lists(
    st.builds(
        JobLoad,
        job_id=st.integers(1, 10_000),
        owner=st.sampled_from(["ann", "bob", "cy"]),
        priority=st.sampled_from([0, 25, 50, 51, 80, 100]),
        ready=st.integers(0, 20),
        queued=st.integers(0, 5),
        running=st.integers(0, 5),
        max_devices=st.none() | st.integers(1, 8),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
        cost=st.sampled_from([0.1, 1.0, 30.0]),
        age_seconds=st.floats(0, 3 * AGEING_SECONDS),
    ),
    unique_by=lambda job: job.job_id,
    max_size=12,
)


class Farm:
    """Workers that take what waits in a queue, first what is first; as many batches at once as there are devices."""

    def __init__(self, devices: int, depth: int = 2) -> None:
        self.devices, self.capacity = devices, devices * depth
        self.ledger = Ledger()
        self.jobs: dict[int, JobLoad] = {}
        self.lists: dict[tuple[int, bool], list[int]] = {}
        self.running: list[int] = []
        self.started: list[int] = []
        """Jobs in the order in which devices began their batches."""
        self.now = 0.0

    def submit(self, job_id: int, owner: str, batches: int, **fields: object) -> None:
        self.jobs[job_id] = JobLoad(job_id, owner, fields.pop("priority", NORMAL), batches, **fields)  # type: ignore[arg-type]

    def turn(self) -> None:
        """All running batches end, the producer fills the queue, the devices take what is next."""
        self.now += 1
        for job_id in self.running:
            self._move(job_id, running=-1)
        self.running.clear()
        self._dispatch()
        while len(self.running) < self.devices and (job_id := self._take()) is not None:
            self._move(job_id, queued=-1, running=1)
            self.running.append(job_id)
            self.started.append(job_id)
            self._dispatch()

    def served(self) -> Counter[int]:
        return Counter(self.started)

    def _dispatch(self) -> None:
        queued: Counter[PriorityClass] = Counter()
        for (rank, _), waiting in self.lists.items():
            queued[PriorityClass(-rank)] += len(waiting)
        for order in plan(self.jobs.values(), self.capacity, queued, self.ledger, self.now):
            self._move(order.job_id, ready=-1, queued=1)
            self.lists.setdefault((-order.priority_class, not order.first), []).append(order.job_id)

    def _take(self) -> int | None:
        for place in sorted(self.lists):
            if self.lists[place]:
                return self.lists[place].pop(0)
        return None

    def _move(self, job_id: int, **changes: int) -> None:
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(job, **{name: getattr(job, name) + by for name, by in changes.items()})


def orders_of(jobs: list[JobLoad], capacity: int, queued: Counter[PriorityClass] | None = None) -> list[Order]:
    return plan(jobs, capacity, queued or Counter(), Ledger(), 0.0)


@given(JOBS, st.integers(1, 40))
def test_no_place_is_left_free_while_work_is_ready(jobs: list[JobLoad], capacity: int) -> None:
    given_to = Counter(order.job_id for order in orders_of(jobs, capacity))
    in_line = [order for order in orders_of(jobs, capacity) if not order.first]
    left = sum(job.room - given_to[job.job_id] for job in jobs)
    bulk = [order for order in in_line if order.priority_class is not PriorityClass.INTERACTIVE]
    left_of_bulk = sum(job.room - given_to[job.job_id] for job in jobs if job.priority < 100)
    assert len(bulk) == capacity or left_of_bulk == 0
    assert left == 0 or len(in_line) >= capacity


@given(JOBS, st.integers(1, 40))
def test_caps_are_kept_and_nothing_is_given_twice(jobs: list[JobLoad], capacity: int) -> None:
    given_to = Counter(order.job_id for order in orders_of(jobs, capacity))
    for job in jobs:
        assert given_to[job.job_id] <= job.ready
        if job.max_devices is not None and given_to[job.job_id]:
            assert job.active + given_to[job.job_id] <= job.max_devices


@given(JOBS, st.integers(1, 40))
def test_a_lower_class_gets_no_place_in_line_before_a_higher_one_has_all(jobs: list[JobLoad], capacity: int) -> None:
    fresh = [replace(job, age_seconds=0.0) for job in jobs if job.priority < 100]
    orders = orders_of(fresh, capacity)
    given_to = Counter(order.job_id for order in orders)
    in_line = [order.priority_class for order in orders if not order.first]
    hungry = [class_of(job.priority) for job in fresh if job.room > given_to[job.job_id]]
    if in_line and hungry:
        assert min(in_line) >= max(hungry)


@given(st.integers(1, 3), st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=2, max_size=4), st.integers(1, 4))
@settings(max_examples=25)
def test_owners_share_by_weight_within_one_batch_whatever_they_submitted(
    devices: int, weights: list[float], jobs_each: int
) -> None:
    farm = Farm(devices)
    for place, weight in enumerate(weights):
        for number in range(1 + place * jobs_each):
            farm.submit(place * 100 + number, f"owner {place}", 10_000, weight=weight)
    for _ in range(120):
        farm.turn()
    # Their first batches, which go before the line, are past.
    before = farm.served()
    for _ in range(200):
        farm.turn()
    got: Counter[int] = Counter()
    for job_id, count in (farm.served() - before).items():
        got[job_id // 100] += count
    total = sum(got.values())
    for place, weight in enumerate(weights):
        fair = total * weight / sum(weights)
        assert abs(got[place] - fair) <= 2 * farm.capacity + 2


def test_owners_share_the_devices_time_and_not_the_number_of_batches() -> None:
    farm = Farm(1)
    farm.submit(1, "ann", 1000, cost=10.0)
    farm.submit(2, "bob", 1000, cost=1.0)
    for _ in range(220):
        farm.turn()
    assert 9 <= farm.served()[2] / farm.served()[1] <= 11


def test_many_jobs_of_one_owner_all_go_on_though_there_are_few_places() -> None:
    farm = Farm(1)
    for number in range(10):
        farm.submit(number, "ann", 100)
    for _ in range(100):
        farm.turn()
    assert set(farm.served()) == set(range(10))
    assert max(farm.served().values()) - min(farm.served().values()) <= FIRST_BATCHES + 1


def test_a_small_job_waits_for_no_more_than_what_is_running_behind_a_huge_one() -> None:
    for devices in (1, 4, 100):
        for owner in ("ann", "bob"):
            farm = Farm(devices)
            farm.submit(1, "ann", 125_000)
            for _ in range(20):
                farm.turn()
            farm.submit(2, owner, 3)
            seen = len(farm.started)
            farm.turn()
            assert 2 in farm.started[seen:], (devices, owner)
            for _ in range(5):
                farm.turn()
            assert farm.served()[2] == 3, (devices, owner)


def test_a_flood_of_small_jobs_takes_no_more_than_its_owners_share() -> None:
    farm = Farm(2)
    farm.submit(0, "bob", 10_000)
    for _ in range(10):
        farm.turn()
    for number in range(1, 400):
        farm.submit(number, "ann", 1)
    before = farm.served()[0]
    for _ in range(100):
        farm.turn()
    assert farm.served()[0] - before >= 90


def test_what_came_back_is_not_paid_for_its_absence() -> None:
    farm = Farm(1)
    farm.submit(1, "ann", 10_000)
    for _ in range(500):
        farm.turn()
    farm.submit(2, "bob", 10_000)
    seen = len(farm.started)
    for _ in range(40):
        farm.turn()
    assert Counter(farm.started[seen:])[1] >= 14


@given(st.sampled_from([0, 25, 50]))
def test_no_class_starves(priority: int) -> None:
    farm = Farm(2)
    farm.submit(1, "ann", 100_000, priority=80)
    farm.submit(2, "bob", 100, priority=priority)
    for _ in range(20):
        farm.turn()
    # Its first batches do not wait in the line of those above, but in its own class.
    risen = class_of(80) - class_of(priority)
    served = farm.served()[2]
    farm.now += risen * AGEING_SECONDS
    for _ in range(6):
        farm.turn()
    assert farm.served()[2] > served
    again = farm.served()[2]
    farm.now += risen * AGEING_SECONDS
    for _ in range(6):
        farm.turn()
    assert farm.served()[2] > again


def test_an_owners_more_important_job_goes_first_within_its_class() -> None:
    jobs = [JobLoad(1, "ann", 50, 5, running=1), JobLoad(2, "ann", 60, 5, running=1)]
    assert [order.job_id for order in orders_of(jobs, 4)] == [2, 2, 2, 2]


def test_interactive_work_has_places_of_its_own() -> None:
    jobs = [JobLoad(1, "ann", 100, 5, running=1), JobLoad(2, "ann", 50, 5, running=1)]
    full = Counter({PriorityClass.NORMAL: 4})
    assert {order.job_id for order in orders_of(jobs, 4, full)} == {1}


def test_an_emptied_farm_forgets_its_jobs() -> None:
    ledger = Ledger()
    plan([JobLoad(1, "ann", 50, 5), JobLoad(2, "ann", 50, 5)], 4, Counter(), ledger, 0.0)
    ledger.forget_all_but({2})
    assert ledger.jobs.keys() == ledger.served.keys() == ledger.served_at.keys() == {2}
