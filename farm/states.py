"""The states of jobs, batches and images, and which changes between them are legal.

This module imports nothing of ours. The guarded UPDATEs that carry the changes out live in
``farm.transitions`` and ``farm.control``; the database's CHECK constraints (``farm.models``) hold the invariants, and
its triggers (``migrations``) refuse every other change.
"""

from enum import StrEnum


class Stage(StrEnum):
    """Which half of the rendering a batch waits for or is in."""

    BASE = "base"
    """Text to latents (and, in a job without a refiner, on to the finished picture)."""
    REFINER = "refiner"
    """Latents to the finished picture."""


class JobState(StrEnum):
    """Life of a job."""

    QUEUED = "queued"
    """Accepted: its transaction committed, from here on it cannot be lost. No batch has been claimed yet.
    In: submit. Out: the first claim (running), cancel."""
    RUNNING = "running"
    """At least one batch was claimed. A crash leaves it here; recovery sees to its batches.
    In: first claim. Out: the last image's end (completed or failed), cancel."""
    COMPLETED = "completed"
    """Every image is completed. Out: somebody has pictures rendered anew that were removed (running)."""
    FAILED = "failed"
    """Every image has ended and at least one of them failed; the others are there.
    Out: somebody lets the failed ones, or those that were removed, be rendered again (running)."""
    CANCELLED = "cancelled"
    """Somebody cancelled it; the images finished before that are kept. Final."""


class BatchState(StrEnum):
    """Life of a batch, the unit of dispatch, lease and retry."""

    READY = "ready"
    """Waits in Postgres for its turn. In: submit, recovery, a failed attempt. Out: dispatch (queued),
    a claim that takes it along in another's call (running), cancel, its job found hopeless (failed)."""
    QUEUED = "queued"
    """A message with its id and attempt has been sent. In: dispatch; base committed (for the refiner).
    Out: claim (running), recovery when the message was lost (ready), cancel, its job found hopeless (failed)."""
    RUNNING = "running"
    """A worker holds its lease. In: claim. Out: finish, base committed (queued for the refiner), failure or
    lease expiry (ready, split or failed), cancel. A crash leaves it here until the lease runs out."""
    COMPLETED = "completed"
    """All of its images are completed. Final."""
    FAILED = "failed"
    """It holds a single image, which failed, or its job was found hopeless. Out: retry by a person (ready)."""
    SPLIT = "split"
    """It failed repeatedly, and its images went to two smaller batches. Final."""
    CANCELLED = "cancelled"
    """Its job was cancelled before it ended. Final."""


class ImageState(StrEnum):
    """Life of an image."""

    PENDING = "pending"
    """Not finished; its batch says where it stands. In: submit. Out: finish, failure, cancel."""
    COMPLETED = "completed"
    """Its picture and thumbnail are in the store, or were until they were removed.
    Out: somebody has it rendered anew that was removed (pending)."""
    FAILED = "failed"
    """It could not be rendered; ``error`` says why. Out: retry by a person (pending)."""
    CANCELLED = "cancelled"
    """Its job was cancelled before it was finished. Final."""


class DeliveryState(StrEnum):
    """Life of a delivery: one event on its way to one webhook."""

    PENDING = "pending"
    """To be sent at its time; also while it is being sent. In: the event itself, replay by a person.
    Out: an answer of 2xx (delivered), the last attempt in vain (failed). A crash leaves it here, with its time."""
    DELIVERED = "delivered"
    """The receiver said that it has it. Out: replay."""
    FAILED = "failed"
    """Given up after the last attempt, or its webhook was disabled. Out: replay."""


JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset({JobState.RUNNING}),
    JobState.FAILED: frozenset({JobState.RUNNING}),
    JobState.CANCELLED: frozenset(),
}

BATCH_TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    BatchState.READY: frozenset({BatchState.QUEUED, BatchState.RUNNING, BatchState.FAILED, BatchState.CANCELLED}),
    BatchState.QUEUED: frozenset({BatchState.RUNNING, BatchState.READY, BatchState.FAILED, BatchState.CANCELLED}),
    BatchState.RUNNING: frozenset(
        {
            BatchState.COMPLETED,
            BatchState.QUEUED,
            BatchState.READY,
            BatchState.FAILED,
            BatchState.SPLIT,
            BatchState.CANCELLED,
        }
    ),
    BatchState.COMPLETED: frozenset(),
    BatchState.FAILED: frozenset({BatchState.READY}),
    BatchState.SPLIT: frozenset(),
    BatchState.CANCELLED: frozenset(),
}

IMAGE_TRANSITIONS: dict[ImageState, frozenset[ImageState]] = {
    ImageState.PENDING: frozenset({ImageState.COMPLETED, ImageState.FAILED, ImageState.CANCELLED}),
    ImageState.COMPLETED: frozenset({ImageState.PENDING}),
    ImageState.FAILED: frozenset({ImageState.PENDING}),
    ImageState.CANCELLED: frozenset(),
}

#: Batches in which nothing happens by itself any more.
ENDED_BATCH_STATES = (BatchState.COMPLETED, BatchState.FAILED, BatchState.SPLIT, BatchState.CANCELLED)
