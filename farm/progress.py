"""Step-by-step progress of batches: ephemeral, through Redis, never part of the truth."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import redis

from farm.errors import ConfigurationError
from farm.settings import Settings
from farm.states import Stage

#: A step of the largest picture on the slowest device should not take longer than this.
TTL_SECONDS = 60
#: A job counts as watched for so long after somebody looked; open pages look again before that.
WATCH_SECONDS = 10
#: Previews outlive the longest step of most devices, and are gone soon after the picture is there.
PREVIEW_SECONDS = 30


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

    def write(self, batch_id: int, progress: Progress, job_id: int | None = None) -> bool:
        """Publish a batch's progress; returns whether somebody watches its job.

        One round trip. Raises redis.RedisError when the broker is away.
        """
        value = json.dumps({"stage": progress.stage.value, "step": progress.step, "steps": progress.steps})
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(f"farm:progress:{batch_id}", value, ex=TTL_SECONDS)
            pipeline.exists(f"farm:watched:{job_id}")
            return bool(pipeline.execute()[1])

    def watch(self, job_id: int) -> None:
        """Say that somebody looks at the job: for a short time its workers show previews. Silent without a broker."""
        with suppress(redis.RedisError):
            self._redis.set(f"farm:watched:{job_id}", 1, ex=WATCH_SECONDS)

    def is_watched(self, job_id: int) -> bool:
        """Whether somebody looked at the job lately. Raises redis.RedisError when the broker is away."""
        return bool(self._redis.exists(f"farm:watched:{job_id}"))

    def write_previews(self, job_id: int, pictures: Mapping[int, bytes]) -> None:
        """Publish previews (JPEG) by the index of their image. Raises redis.RedisError when the broker is away."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for index, data in pictures.items():
                pipeline.set(_preview_key(job_id, index), data, ex=PREVIEW_SECONDS)
            pipeline.execute()

    def read_preview(self, job_id: int, index: int) -> bytes | None:
        """The latest preview of an image; None when there is none, or no broker."""
        try:
            data = self._redis.get(_preview_key(job_id, index))
        except redis.RedisError:
            return None
        return data if isinstance(data, bytes) else None

    def previewed(self, job_id: int, indices: Iterable[int]) -> list[int]:
        """Which of these images have a preview now; none while the broker is away."""
        indices = list(indices)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for index in indices:
                    pipeline.exists(_preview_key(job_id, index))
                found = pipeline.execute()
        except redis.RedisError:
            return []
        return [index for index, there in zip(indices, found, strict=True) if there]

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


def _preview_key(job_id: int, index: int) -> str:
    return f"farm:preview:{job_id}:{index}"
