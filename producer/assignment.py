"""Which worker serves what, as a pure function over numbers.

A worker may leave its pipeline, its stages or both to the leading producer. Loading takes time, so nothing changes
unless it gains several times that: what is measured jumps about, and workers that follow every jump render nothing.

A pipeline's *drain time* is how long its devices would take for what waits, if they shared it well: its base and its
refiner are each done by those that serve them, and both together by all.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from farm.states import Stage

Stages = frozenset[Stage]
BASE: Stages = frozenset({Stage.BASE})
REFINER: Stages = frozenset({Stage.REFINER})
BOTH: Stages = frozenset(Stage)

#: A change must gain so many times what loading costs.
GAIN = 3.0
#: ... and this share of the drain time.
GAIN_SHARE = 0.1
#: A worker that came to serve something stays for so many times what loading it took, and at least so long.
STAY_LOADS = 10.0
STAY_SECONDS = 60.0
#: Those that were started with it may come so many times what loading took later, and at least so long.
ARRIVE_LOADS = 1.0
ARRIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Device:
    """A worker that takes batches."""

    worker_id: str
    pipeline: str
    stages: Stages
    choosable: frozenset[str] = frozenset()
    """Pipelines that it may be told to serve; none if its pipeline is fixed."""
    splittable: bool = False
    """Whether its stages may change."""
    seconds_here: float = math.inf
    """Since it came to serve this."""
    load_seconds: float = 0.0
    """What loading took."""

    @property
    def settled(self) -> bool:
        """Whether it was here long enough to go."""
        return self.seconds_here >= max(STAY_SECONDS, STAY_LOADS * self.load_seconds)

    @property
    def arriving(self) -> bool:
        """Whether others that were started with it may still be loading."""
        return self.seconds_here < max(ARRIVE_SECONDS, ARRIVE_LOADS * self.load_seconds)


@dataclass(frozen=True, slots=True)
class Demand:
    """A pipeline, and a device's seconds for what waits for its stages."""

    seconds: Mapping[Stage, float]
    has_refiner: bool = True

    @property
    def total(self) -> float:
        """Of both stages."""
        return sum(self.seconds.values())


def assign(devices: Sequence[Device], demands: Mapping[str, Demand]) -> list[Device]:
    """The devices that shall change, as they shall be. Pipelines without work need not be among the ``demands``."""
    known = {device.pipeline: Demand({}) for device in devices} | {**demands}
    moved = _share_pipelines(devices, known)
    assigned = []
    for pipeline, demand in known.items():
        assigned += _split([device for device in moved if device.pipeline == pipeline], demand)
    before = {device.worker_id: device for device in devices}
    return [
        device
        for device in sorted(assigned, key=lambda device: device.worker_id)
        if (device.pipeline, device.stages) != (before[device.worker_id].pipeline, before[device.worker_id].stages)
    ]


def drain_seconds(demand: Demand, serving: Sequence[Stages]) -> float:
    """How long devices that serve these stages take for what waits; infinite if nobody serves some of it."""
    longest = 0.0
    for stages in (BASE, REFINER, BOTH):
        needed = sum(demand.seconds.get(stage, 0.0) for stage in stages)
        able = sum(1 for one in serving if one & stages)
        if needed:
            longest = max(longest, needed / able if able else math.inf)
    return longest


def _share_pipelines(devices: Sequence[Device], demands: Mapping[str, Demand]) -> list[Device]:
    """The devices, those among them moved to other pipelines that are needed more there."""
    at: dict[str, list[Device]] = defaultdict(list)
    for device in devices:
        at[device.pipeline].append(device)
    gone: set[str] = set()
    while (move := _best_move(at, demands, gone)) is not None:
        device, pipeline = move
        gone.add(device.worker_id)
        at[device.pipeline].remove(device)
        at[pipeline].append(_moved(device, pipeline, demands[pipeline]))
    return [device for own in at.values() for device in own]


def _moved(device: Device, pipeline: str, demand: Demand) -> Device:
    stages = BOTH if demand.has_refiner else BASE
    kept = device.stages if not device.splittable and device.stages <= stages else stages
    return replace(device, pipeline=pipeline, stages=kept)


def _is_served(demand: Demand, devices: Sequence[Device]) -> bool:
    """Whether there is somebody for all of a pipeline's work, once those that may have shared its stages."""
    return math.isfinite(drain_seconds(demand, [BOTH if one.splittable else one.stages for one in devices]))


def _best_move(
    at: Mapping[str, Sequence[Device]], demands: Mapping[str, Demand], gone: set[str]
) -> tuple[Device, str] | None:
    """The device that is most worth moving to the pipeline that needs one most, if any is."""

    def load(pipeline: str, more: int = 0) -> float:
        work, count = demands[pipeline].total, len(at.get(pipeline, ())) + more
        return 0.0 if not work else work / count if count > 0 else math.inf

    def helps(device: Device, pipeline: str) -> bool:
        """Whether it would find work there, and no fewer pipelines had somebody for all of theirs."""
        old, new = at[device.pipeline], at.get(pipeline, ())
        arrived = _moved(device, pipeline, demands[pipeline])
        left = [one for one in old if one is not device]
        served = _is_served(demands[device.pipeline], old) + _is_served(demands[pipeline], new)
        still = _is_served(demands[device.pipeline], left) + _is_served(demands[pipeline], [*new, arrived])
        return still >= served and any(demands[pipeline].seconds.get(stage) for stage in arrived.stages)

    for pipeline in sorted(demands, key=load, reverse=True):
        before = load(pipeline)
        movable = [
            device
            for other, own in at.items()
            if other != pipeline
            for device in own
            if pipeline in device.choosable and device.worker_id not in gone and (device.settled or not load(other))
        ]
        for device in sorted(movable, key=lambda device: (load(device.pipeline, -1), device.worker_id)):
            if not before:
                break
            if not helps(device, pipeline):
                continue
            other = device.pipeline
            after = max(load(pipeline, 1) + device.load_seconds, load(other, -1))
            if math.isinf(before) and math.isinf(after):
                # Each would have nobody in turn: they take turns, for as long as a device stays.
                return device, pipeline
            if _is_gain(before, after, device.load_seconds):
                return device, pipeline
    return None


def _split(devices: Sequence[Device], demand: Demand) -> list[Device]:
    """One pipeline's devices with the stages that they shall serve, so that both queues drain at one rate."""
    free = [device for device in devices if device.splittable]
    # Who comes first would else take on the stage of who comes a second later.
    if any(device.arriving for device in free):
        return [*devices]
    if not demand.has_refiner:
        return [replace(device, stages=BASE) if device in free else device for device in devices]
    if len(devices) == 1:
        return [replace(device, stages=BOTH) if device in free else device for device in devices]
    if not free or not demand.total:
        return [*devices]
    fixed = [device.stages for device in devices if not device.splittable]
    current = drain_seconds(demand, [device.stages for device in devices])

    def drained(refiners: int) -> float:
        return drain_seconds(demand, [*fixed, *[REFINER] * refiners, *[BASE] * (len(free) - refiners)])

    now = sum(device.stages == REFINER for device in free)
    best = min(range(len(free) + 1), key=lambda refiners: (drained(refiners), abs(refiners - now)))
    load = max(device.load_seconds for device in free)
    doing_both = [device for device in free if device.stages == BOTH]
    worth = _is_gain(current, drained(best), load) and (math.isinf(current) or all(device.settled for device in free))
    # Doing both is as fast, but takes the memory of two pipelines: it ends when there is work enough.
    parted = bool(doing_both) and drained(best) > STAY_LOADS * max(load, 1.0) and all(one.settled for one in doing_both)
    if math.isinf(drained(best)) or not (worth or parted):
        return [*devices]
    # Those change that must: who serves both goes first, then as many of one side as the other lacks.
    order = sorted(free, key=lambda device: (device.stages == BASE, device.stages == BOTH, device.worker_id))
    refiners = {device.worker_id for device in order[:best]}
    return [
        replace(device, stages=REFINER if device.worker_id in refiners else BASE) if device in free else device
        for device in devices
    ]


def _is_gain(before: float, after: float, load_seconds: float) -> bool:
    if math.isinf(before):
        return not math.isinf(after)
    return before - after > max(GAIN * load_seconds, GAIN_SHARE * before)
