"""Accepts a job: checked, expanded and written in one transaction. Once it commits, the job cannot be lost.

First all of it is checked; what will be written goes to temporary files meanwhile. So a job of a million images takes
little memory, a refused one costs the database nothing, and the transaction is as short as it can be.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import IO, Any, cast

import psycopg
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from farm.activity import note
from farm.batch_sizes import BatchSizes, find_batch_sizes
from farm.catalog import Catalog
from farm.database import wake_producer
from farm.errors import ConflictError, InvalidSubmissionError, Problem
from farm.events import Announcement, Kind, announce
from farm.faults import reach
from farm.models import IdempotencyKey, Job
from farm.spec import MAX_IMAGES
from farm.tracing import span, traceparent
from producer.batching import Grouping
from producer.expand import Expansion, Shape
from producer.inputs import find_inputs, note_inputs
from producer.intake import Intake
from producer.quotas import Quotas, count_submission, require_quota
from producer.words import word_lists

_NAME_LENGTH = 80
#: Larger jobs go to disk while they are checked.
_SPOOL_BYTES = 2**20
_COPY_BYTES = 2**18
#: Shapes whose part of a line is remembered.
_MAX_SHAPES = 10_000
#: Most ids of batches that are drawn at once.
_MAX_IDS = 4_096
#: What ends a value or a line in COPY's text format, and how it is written there.
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
_NULL = r"\N"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was accepted."""

    job_id: int
    image_count: int
    batch_count: int
    seed: int
    ignored_columns: tuple[str, ...]
    test_images: int | None = None
    """Set when only so many images are rendered until somebody lets the rest follow."""
    repeated: bool = False
    """Whether the job had been accepted before, under the same idempotency key."""


@dataclass(frozen=True, slots=True)
class Once:
    """A key under which a submission may be repeated without making a second job."""

    key: str
    digest: Callable[[], str]
    """Hash of everything that was sent, known at the latest when all rows were read: what makes two the same."""


def submit_job(
    engine: Engine,
    catalog: Catalog,
    default_pipeline: str,
    fields: Mapping[str, Any],
    intake: Intake,
    owner: str = "",
    quotas: Quotas | None = None,
    once: Once | None = None,
) -> Receipt:
    """Accept a job, or raise InvalidSubmissionError and write nothing.

    ``fields`` are those of ``farm.spec.JobSpec`` (strings as a form sends them will do), ``intake`` holds the rows.
    ``quotas`` are those of the token that was shown: QuotaExceededError tells what it does not allow now. With ``once``
    a submission that was accepted before gets its receipt again, and ConflictError says that it was for another.
    """
    if once is not None and (before := _accepted_before(engine, owner, once)) is not None:
        return before
    expansion = Expansion(
        catalog,
        default_pipeline,
        fields,
        lambda refs: find_inputs(engine, refs),
        lambda: word_lists(engine),
        MAX_IMAGES if quotas is None or quotas.largest_job is None else quotas.largest_job,
    )
    with (
        span("submit"),
        tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as batches,
        tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as images,
    ):
        draft = _Draft(expansion, _batch_ids(engine), cast("IO[bytes]", batches), cast("IO[bytes]", images))
        draft.write(intake, find_batch_sizes(engine, expansion.pipeline, expansion.spec.batch_size))
        try:
            with engine.begin() as connection:
                receipt = _insert(connection, draft, owner, quotas, once, tuple(intake.ignored_columns))
                reach("submit.written")
        except _AcceptedMeanwhileError:
            assert once is not None  # noqa: S101 - raised for its sake
            return cast("Receipt", _accepted_before(engine, owner, once))
    reach("submit.committed")
    return receipt


class _AcceptedMeanwhileError(Exception):
    """The same key was used by a submission that committed while this one was checked."""


class _Draft:
    """A job as lines for COPY, in files: all but its id, which is known when it is written to the database."""

    def __init__(self, expansion: Expansion, batch_ids: Iterator[int], batches: IO[bytes], images: IO[bytes]) -> None:
        self.expansion, self.batches, self.images = expansion, batches, images
        self._ids = batch_ids
        self._parts: dict[Shape, tuple[str, str]] = {}
        self.image_count = self.batch_count = 0
        self.test_images: int | None = None
        self.name = expansion.spec.name or ""

    def write(self, intake: Intake, sizes: BatchSizes) -> None:
        """Check and write all rows; raises InvalidSubmissionError."""
        spec = self.expansion.spec
        grouping = Grouping(sizes, self._ids)
        held = "f"
        for index, (shape, prompt, seed) in enumerate(self.expansion.images(intake.rows)):
            if index == 0:
                self.name = self.name or prompt[:_NAME_LENGTH]
            if index == spec.test_run:
                # Its images share no batch with the others, which wait for its end.
                grouping.close()
                held, self.test_images = "t", spec.test_run
            batch_id, is_new = grouping.put(shape)
            if is_new:
                self.batch_count += 1
                parameters = shape.shared.model_dump_json(exclude_none=True).translate(_ESCAPES)
                self.batches.write(f"{batch_id}\t{held}\t{parameters}\t\n".encode())
            negative, own = self._parts_of(shape)
            line = f"{index}\t{batch_id}\t{prompt.translate(_ESCAPES)}\t{negative}\t{seed}\t{own}\t\n"
            self.images.write(line.encode())
            self.image_count = index + 1

    def row(self) -> dict[str, Any]:
        """The job's own row."""
        spec = self.expansion.spec
        said = spec.model_dump(mode="json", exclude_unset=True)
        return {
            "name": self.name,
            "pipeline": self.expansion.pipeline.name,
            "priority": spec.priority,
            "spec": {**self.expansion.given, **said, "seed": self.expansion.seed},
            "image_count": self.image_count,
            "test_images": self.test_images,
            "requires": spec.requires,
            "max_devices": spec.max_devices,
            "deadline": spec.deadline,
            "keep_days": spec.keep_days,
            "keep_starred": spec.keep_starred,
        }

    def _parts_of(self, shape: Shape) -> tuple[str, str]:
        """Negative prompt and own parameters as a line says them."""
        known = self._parts.get(shape)
        if known is None:
            negative = shape.parameters.negative_prompt
            known = (
                _NULL if negative is None else negative.translate(_ESCAPES),
                json.dumps(shape.own).translate(_ESCAPES) if shape.own else _NULL,
            )
            if len(self._parts) >= _MAX_SHAPES:
                self._parts.clear()
            self._parts[shape] = known
        return known


def _insert(
    connection: Connection,
    draft: _Draft,
    owner: str,
    quotas: Quotas | None,
    once: Once | None,
    ignored_columns: tuple[str, ...],
) -> Receipt:
    if quotas is not None:
        require_quota(connection, quotas, draft.image_count)
    after = _job_before(connection, draft.expansion)
    job_id = connection.scalar(text("SELECT nextval(pg_get_serial_sequence('jobs', 'id'))"))
    receipt = Receipt(
        job_id, draft.image_count, draft.batch_count, draft.expansion.seed, ignored_columns, draft.test_images
    )
    if once is not None:
        # Who says the same at the same time waits here until we commit.
        row = {"owner": owner, "key": once.key, "request_sha256": once.digest(), "receipt": asdict(receipt)}
        statement = upsert(IdempotencyKey).values(row).on_conflict_do_nothing().returning(IdempotencyKey.key)
        if connection.scalar(statement) is None:
            raise _AcceptedMeanwhileError
    own = {"id": job_id, "owner": owner, "after_job_id": after, "traceparent": traceparent()}
    own["token_id"] = None if quotas is None else quotas.token_id
    connection.execute(insert(Job).values(draft.row() | own))
    note_inputs(connection, job_id, draft.expansion.inputs)
    _copy(connection, "batches (id, held, parameters, job_id)", job_id, draft.batches)
    columns = '"index", batch_id, prompt, negative_prompt, seed, parameters, job_id'
    _copy(connection, f"images ({columns})", job_id, draft.images)
    if quotas is not None:
        count_submission(connection, quotas, draft.image_count)
    details = {} if draft.test_images is None else {"test_images": draft.test_images}
    note(connection, owner, "job.submit", job_id, images=draft.image_count, **details)
    announce(connection, job_id, Announcement(Kind.JOB_SUBMITTED))
    wake_producer(connection)
    return receipt


def _job_before(connection: Connection, expansion: Expansion) -> int | None:
    """The job whose end this one waits for: the one that it names, or the one whose pictures it starts from.

    Raises InvalidSubmissionError.
    """
    after, sources = expansion.spec.after, expansion.jobs_named
    ended = {
        job_id: finished_at is not None
        for job_id, finished_at in connection.execute(
            select(Job.id, Job.finished_at).where(Job.id.in_(sources if after is None else {*sources, after}))
        )
    }
    if after is not None and after not in ended:
        raise InvalidSubmissionError(
            [Problem("after", f"there is no job {after}; give the number of one that is there")]
        )
    unfinished = sorted(source for source in sources if source != after and not ended.get(source, False))
    if not unfinished:
        return after
    if after is None and len(unfinished) == 1:
        return unfinished[0]
    named = " and ".join(f"job {source}" for source in unfinished)
    raise InvalidSubmissionError(
        [
            Problem(
                "after", f"a job waits for one other, and pictures of {named} are to come; submit it when those ended"
            )
        ]
    )


def _accepted_before(engine: Engine, owner: str, once: Once) -> Receipt | None:
    """The receipt that this key has got; raises ConflictError if it was for another submission."""
    query = select(IdempotencyKey.request_sha256, IdempotencyKey.receipt).where(
        IdempotencyKey.owner == owner, IdempotencyKey.key == once.key
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != once.digest():
        raise ConflictError(
            f"The idempotency key {once.key!r} was used for another submission, job {row.receipt['job_id']}; "
            f"send this one with a key of its own."
        )
    columns = tuple(row.receipt["ignored_columns"])
    return replace(Receipt(**row.receipt), ignored_columns=columns, repeated=True)


def _batch_ids(engine: Engine) -> Iterator[int]:
    """Ids for new batches, drawn in growing portions; those of a refused job are never used."""
    portion = 1
    while True:
        with engine.connect() as connection:
            drawn = connection.execute(
                text("SELECT nextval(pg_get_serial_sequence('batches', 'id')) FROM generate_series(1, :count)"),
                {"count": portion},
            )
            ids = drawn.scalars().all()
        yield from ids
        portion = min(portion * 8, _MAX_IDS)


def _copy(connection: Connection, target: str, job_id: int, lines: IO[bytes]) -> None:
    """Write lines that lack the job's id at their end."""
    raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    end = f"{job_id}\n".encode()
    lines.seek(0)
    with raw.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN".encode()) as copy:
        while data := lines.read(_COPY_BYTES):
            copy.write(data.replace(b"\n", end))
