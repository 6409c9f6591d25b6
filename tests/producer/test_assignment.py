"""Which worker serves what: the pure function."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.states import Stage
from producer.assignment import BASE, BOTH, REFINER, Demand, Device, Stages, assign, drain_seconds


def demand(base: float, refiner: float = 0.0, *, has_refiner: bool = True) -> Demand:
    return Demand({Stage.BASE: base, Stage.REFINER: refiner}, has_refiner)


def fleet(*stages: Stages, pipeline: str = "a", choosable: str = "", load_seconds: float = 5.0) -> list[Device]:
    return [
        Device(f"{pipeline}{number}", pipeline, one, frozenset(choosable), splittable=True, load_seconds=load_seconds)
        for number, one in enumerate(stages)
    ]


def after(devices: list[Device], demands: dict[str, Demand]) -> list[Device]:
    changed = {device.worker_id: device for device in assign(devices, demands)}
    return [changed.get(device.worker_id, device) for device in devices]


def refiners(devices: list[Device]) -> int:
    return sum(device.stages == REFINER for device in devices)


def test_one_device_does_both() -> None:
    (alone,) = after(fleet(BASE), {"a": demand(100, 25)})
    assert alone.stages == BOTH
    (alone,) = after(fleet(BOTH), {"a": demand(100, has_refiner=False)})
    assert alone.stages == BASE


@pytest.mark.parametrize(("base", "refiner", "expected"), [(8000, 2000, 2), (5000, 5000, 5), (1000, 9000, 9)])
def test_both_queues_drain_at_one_rate(base: float, refiner: float, expected: int) -> None:
    assert refiners(after(fleet(*[BASE] * 9, REFINER), {"a": demand(base, refiner)})) == expected
    assert refiners(after(fleet(*[BOTH] * 10), {"a": demand(base, refiner)})) == expected


def test_what_nobody_serves_is_served_at_once() -> None:
    newcomers = [
        Device("a0", "a", BASE, splittable=True, seconds_here=11),
        Device("a1", "a", BASE, splittable=True, seconds_here=11),
    ]
    assert refiners(after(newcomers, {"a": demand(10, 10)})) == 1


@pytest.mark.parametrize("load_seconds", [5.0, 60.0])
def test_who_comes_first_waits_for_those_that_were_started_with_it(load_seconds: float) -> None:
    """The refiner's worker was ready a second before the base's: it took on both stages, and so did the other."""
    first = Device("a0", "a", REFINER, splittable=True, seconds_here=1, load_seconds=load_seconds)
    for work in (demand(0), demand(10, 10)):
        assert assign([first], {"a": work}) == []
        (alone,) = after([replace(first, seconds_here=load_seconds + 10)], {"a": work})
        assert alone.stages == BOTH, "nobody came"


def test_small_gains_and_newcomers_change_nothing() -> None:
    split = fleet(BASE, BASE, BASE, REFINER)
    assert assign(split, {"a": demand(700, 300)}) == [], "a little out of balance"
    assert assign(split, {"a": demand(4, 12)}) == [], "done before anything were loaded"
    busy = {"a": demand(1000, 9000)}
    assert assign(split, busy) != []
    assert assign([replace(device, seconds_here=20.0) for device in split], busy) == []


def test_what_is_fixed_stays() -> None:
    fixed = [Device("a0", "a", BASE), Device("a1", "a", BOTH)]
    assert assign(fixed, {"a": demand(1, 10_000), "b": demand(10_000)}) == []


def test_devices_go_where_the_work_is() -> None:
    idle = fleet(BOTH, BOTH, pipeline="a", choosable="ab")
    moved = after(idle, {"b": demand(1000, 250)})
    assert [device.pipeline for device in moved] == ["b", "b"]
    assert refiners(moved) == 1
    shared = after(fleet(*[BASE] * 4, pipeline="a", choosable="ab"), {"a": demand(1000), "b": demand(1000)})
    assert sorted(device.pipeline for device in shared) == ["a", "a", "b", "b"]


def test_loading_must_pay() -> None:
    heavy = fleet(BOTH, BOTH, pipeline="a", choosable="ab", load_seconds=60)
    moved = after(heavy, {"a": demand(300), "b": demand(1)})
    assert sorted(device.pipeline for device in moved) == ["a", "b"], "else nobody ever did it"
    busy = [replace(device, seconds_here=100.0) for device in heavy]
    assert assign(busy, {"a": demand(300, 10), "b": demand(1)}) == [], "none goes before it was worth its loading"


def test_one_device_takes_turns() -> None:
    (device,) = after(fleet(BOTH, pipeline="a", choosable="ab"), {"a": demand(1e6), "b": demand(10)})
    assert device.pipeline == "b"
    new = Device("a0", "a", BOTH, frozenset("ab"), splittable=True, seconds_here=5, load_seconds=5)
    assert assign([new], {"a": demand(1e6), "b": demand(10)}) == []


def test_nobody_goes_where_its_stages_have_nothing_to_do() -> None:
    """A worker for the base alone left the base that it served for a pipeline that waited for its refiner."""
    fixed = [replace(device, splittable=False) for device in fleet(BASE, choosable="ab")]
    assert assign(fixed, {"a": demand(1), "b": demand(0, 100)}) == []
    assert assign(fixed, {"a": demand(1), "b": demand(100, 100)}) == [], "neither were served then"
    (turn,) = after(fixed, {"a": demand(1), "b": demand(100)})
    assert turn.pipeline == "b"


def test_only_what_fits_is_loaded() -> None:
    assert assign(fleet(BOTH, pipeline="a", choosable="ac"), {"b": demand(1000)}) == []


stages = st.sampled_from([BASE, REFINER, BOTH])
works = st.floats(0, 1e5)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), stages, st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.dictionaries(st.sampled_from("abc"), st.tuples(works, works)),
)
def test_it_never_makes_matters_worse_and_comes_to_rest(
    drawn: list[tuple[str, Stages, bool, bool]], waiting: dict[str, tuple[float, float]]
) -> None:
    devices = [
        Device(str(number), pipeline, serves, frozenset("abc") if moves else frozenset(), splits, load_seconds=2.0)
        for number, (pipeline, serves, moves, splits) in enumerate(drawn)
    ]
    demands = {pipeline: demand(*work) for pipeline, work in waiting.items()}

    def unserved(some: list[Device]) -> int:
        return sum(
            math.isinf(drain_seconds(one, [device.stages for device in some if device.pipeline == pipeline]))
            for pipeline, one in demands.items()
        )

    changed = after(devices, demands)
    assert {device.worker_id for device in changed} == {device.worker_id for device in devices}
    for old, new in zip(devices, changed, strict=True):
        assert new.pipeline == old.pipeline or new.pipeline in old.choosable
        assert new.stages == old.stages or old.splittable or new.pipeline != old.pipeline
    assert unserved(changed) <= unserved(devices)
    # They have just come to what they serve: nothing that is served makes them go again.
    again = [replace(device, seconds_here=0.0) for device in changed]  # type: ignore[arg-type]
    if not unserved(changed):
        assert assign(again, demands) == []
