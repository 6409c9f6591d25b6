"""Step-by-step progress of batches: ephemeral, through Redis, never part of the truth."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from farm.errors import ConfigurationError
from farm.settings import Settings
from farm.states import Stage

#: A step of the largest picture on the slowest device should not take longer than this.
TTL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Progress:
    """``step`` of ``steps`` of ``stage`` are done."""

    stage: Stage
    step: int
    steps: int


def of_stage(progress: Progress | None, stage: Stage) -> Progress | None:
    """Progress that still speaks of this stage."""
    return progress if progress is not None and progress.stage is stage else None


class ProgressBoard:
    """Where workers write how far their batches are, and the dashboard reads it."""

    def __init__(self, settings: Settings) -> None:
        if settings.broker_url is None:
            raise ConfigurationError("No broker: set FARM_BROKER_URL (redis://...).")
        # Short timeouts: progress is never worth waiting for.
        self._redis = redis.Redis.from_url(settings.broker_url, socket_timeout=1, socket_connect_timeout=1)

    def check(self) -> None:
        """Raise redis.RedisError unless the broker answers."""
        self._redis.ping()

    def write(self, batch_id: int, progress: Progress) -> None:
        """Publish a batch's progress. Raises redis.RedisError when the broker is away."""
        value = json.dumps({"stage": progress.stage.value, "step": progress.step, "steps": progress.steps})
        self._redis.set(f"farm:progress:{batch_id}", value, ex=TTL_SECONDS)

    def read(self, batch_ids: Iterable[int]) -> dict[int, Progress]:
        """Progress of those batches that reported lately; empty while the broker is away."""
        batch_ids = list(batch_ids)
        if not batch_ids:
            return {}
        try:
            values = self._redis.mget([f"farm:progress:{batch_id}" for batch_id in batch_ids])
        except redis.RedisError:
            return {}
        found = {}
        for batch_id, value in zip(batch_ids, values, strict=True):
            if value is not None:
                fields = json.loads(value)
                found[batch_id] = Progress(Stage(fields["stage"]), fields["step"], fields["steps"])
        return found
