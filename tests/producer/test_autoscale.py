"""How many devices would be done in time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from producer.autoscale import STARTING_SECONDS, Due, devices_in_time, devices_wanted

seconds = st.floats(0, 1e6)
pieces = st.builds(Due, seconds, st.floats(-1e4, 1e6))
work = st.lists(pieces, max_size=20)


def late(work: list[Due], devices: int) -> bool:
    """Whether so many devices, which share all work and begin with what is due first, are late with any of it."""
    time = 0.0
    for piece in sorted(work, key=lambda piece: piece.seconds_left):
        time += piece.device_seconds / devices if devices else math.inf * bool(piece.device_seconds)
        if time > max(piece.seconds_left, STARTING_SECONDS) * (1 + 1e-6):
            return True
    return False


@given(work)
def test_nothing_is_late_and_with_a_device_less_something_would_be(work: list[Due]) -> None:
    devices = devices_in_time(work)
    if any(piece.device_seconds for piece in work):
        assert not late(work, devices)
    if devices > 1:
        tighter = [Due(piece.device_seconds * (1 + 1e-5), piece.seconds_left) for piece in work]
        assert late(tighter, devices - 1)


@given(work, pieces)
def test_more_work_never_takes_fewer_devices(work: list[Due], piece: Due) -> None:
    assert devices_in_time([*work, piece]) >= devices_in_time(work)


@given(work, st.floats(0, 1e5))
def test_more_time_never_takes_more_devices(work: list[Due], later: float) -> None:
    assert devices_in_time([Due(piece.device_seconds, piece.seconds_left + later) for piece in work]) <= (
        devices_in_time(work)
    )


@given(work, st.randoms())
def test_the_order_in_which_work_is_listed_does_not_matter(work: list[Due], random) -> None:
    shuffled = random.sample(work, len(work))
    assert abs(devices_in_time(shuffled) - devices_in_time(work)) <= 1  # sums of floats


def test_by_hand() -> None:
    assert devices_in_time([]) == 0
    assert devices_in_time([Due(600, 600)]) == 1
    assert devices_in_time([Due(601, 600)]) == 2
    # The first is small, and so are the first two; all three need four devices for 1,000 seconds.
    assert devices_in_time([Due(3_500, 1_000), Due(10, 100), Due(490, 500)]) == 4
    # What is due soon decides, though most has time.
    assert devices_in_time([Due(50_000, 50_000), Due(900, 300)]) == 3
    # Nothing that begins now is done before now.
    assert devices_in_time([Due(120, -5_000)]) == 2


@given(work | st.none(), st.integers(0, 50))
def test_devices_are_never_more_than_batches_and_none_only_where_there_are_none(
    work: list[Due] | None, batches: int
) -> None:
    devices = devices_wanted(work, batches)
    assert min(batches, 1) <= devices <= batches
    if work is None and batches:
        assert devices == 1
