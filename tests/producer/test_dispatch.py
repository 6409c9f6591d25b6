"""Fair shares as a pure function, and queues that stay short."""

from hypothesis import given
from hypothesis import strategies as st

from farm.states import Stage
from producer.dispatch import REFINER_BACKLOG, JobLoad, QueueLoad, fair_shares, free_places

JOBS = st.lists(
    st.builds(
        JobLoad,
        job_id=st.integers(1, 10_000),
        owner=st.sampled_from(["ann", "bob", "cy"]),
        priority=st.integers(0, 3),
        ready=st.integers(0, 20),
        active=st.integers(0, 20),
    ),
    unique_by=lambda job: job.job_id,
    max_size=12,
)


@given(JOBS, st.integers(0, 40))
def test_no_place_is_left_free_while_work_is_ready(jobs: list[JobLoad], places: int) -> None:
    shares = fair_shares(jobs, places)
    assert sum(shares.values()) == min(places, sum(job.ready for job in jobs))
    assert all(0 < shares[job.job_id] <= job.ready for job in jobs if job.job_id in shares)


@given(JOBS, st.integers(0, 40))
def test_a_lower_priority_gets_nothing_before_a_higher_one_has_all(jobs: list[JobLoad], places: int) -> None:
    shares = fair_shares(jobs, places)
    served = [job.priority for job in jobs if shares.get(job.job_id)]
    hungry = [job.priority for job in jobs if shares.get(job.job_id, 0) < job.ready]
    if served and hungry:
        assert min(served) >= max(hungry)


@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 40))
def test_equal_owners_get_equal_shares_whatever_they_submitted(ann_jobs: int, bob_jobs: int, places: int) -> None:
    jobs = [JobLoad(n, "ann" if n < ann_jobs else "bob", 50, ready=100, active=0) for n in range(ann_jobs + bob_jobs)]
    shares = fair_shares(jobs, places)
    of_ann = sum(shares.get(n, 0) for n in range(ann_jobs))
    assert abs(of_ann - (places - of_ann)) <= 1


def test_a_small_job_is_served_at_once_beside_a_huge_one() -> None:
    huge, small = JobLoad(1, "ann", 50, ready=100, active=6), JobLoad(2, "bob", 50, ready=2, active=0)
    assert fair_shares([huge, small], 2) == {2: 2}


def test_queues_are_filled_to_their_depth_and_no_further() -> None:
    base = QueueLoad("tiny", Stage.BASE, interactive=False, workers=3, queued=1)
    assert free_places(base, [base], depth=2) == 5
    assert free_places(QueueLoad("tiny", Stage.BASE, interactive=False, workers=0, queued=0), [], depth=2) == 0
    assert free_places(QueueLoad("tiny", Stage.BASE, interactive=False, workers=1, queued=9), [], depth=2) == 0


def test_the_base_waits_for_a_refiner_that_falls_behind() -> None:
    base = QueueLoad("tiny", Stage.BASE, interactive=False, workers=3, queued=0)
    refiner = QueueLoad("tiny", Stage.REFINER, interactive=False, workers=1, queued=REFINER_BACKLOG)
    assert free_places(base, [base, refiner], depth=2) == 0
    assert free_places(refiner, [base, refiner], depth=2) == 0
    elsewhere = QueueLoad("sdxl-1.0", Stage.REFINER, interactive=False, workers=1, queued=REFINER_BACKLOG)
    assert free_places(base, [base, elsewhere], depth=2) == 6


def test_bulk_takes_no_place_of_the_interactive_class() -> None:
    interactive = QueueLoad("tiny", Stage.BASE, interactive=True, workers=1, queued=0)
    full = QueueLoad("tiny", Stage.BASE, interactive=False, workers=1, queued=2)
    behind = QueueLoad("tiny", Stage.REFINER, interactive=False, workers=1, queued=REFINER_BACKLOG)
    assert free_places(full, [interactive, full, behind], depth=2) == 0
    assert free_places(interactive, [interactive, full, behind], depth=2) == 2
