"""Accepts a job: checked, expanded and written in one transaction. Once it commits, the job cannot be lost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from sqlalchemy import Engine, insert, text

from farm.activity import note
from farm.catalog import Catalog
from farm.database import wake_producer
from farm.events import Announcement, Kind, announce
from farm.models import Job
from producer.batching import batches_of
from producer.expand import plan_job
from producer.inputs import find_inputs
from producer.intake import Intake
from producer.words import word_lists

_NAME_LENGTH = 80


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


def submit_job(
    engine: Engine, catalog: Catalog, default_pipeline: str, fields: Mapping[str, Any], intake: Intake, owner: str = ""
) -> Receipt:
    """Accept a job, or raise InvalidSubmissionError and write nothing.

    ``fields`` are those of ``farm.spec.JobSpec`` (strings as a form sends them will do), ``intake`` holds the rows.
    """
    plan = plan_job(
        catalog,
        default_pipeline,
        fields,
        intake,
        lambda refs: find_inputs(engine, refs),
        lambda: word_lists(engine),
    )
    batches, tested = batches_of(plan)
    is_test = tested < len(batches)
    row = {
        "name": plan.spec.name or plan.images[0].prompt[:_NAME_LENGTH],
        "owner": owner,
        "pipeline": plan.pipeline.name,
        "priority": plan.spec.priority,
        "spec": {**plan.given, **plan.spec.model_dump(mode="json", exclude_unset=True), "seed": plan.seed},
        "image_count": len(plan.images),
        "test_images": plan.spec.test_run if is_test else None,
    }
    with engine.begin() as connection:
        job_id = connection.execute(insert(Job).values(row).returning(Job.id)).scalar_one()
        batch_ids = list(
            connection.execute(
                text("SELECT nextval(pg_get_serial_sequence('batches', 'id')) FROM generate_series(1, :count)"),
                {"count": len(batches)},
            ).scalars()
        )
        raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        with raw.cursor() as cursor:
            with cursor.copy("COPY batches (id, job_id, held, parameters) FROM STDIN") as copy:
                for place, (batch_id, batch) in enumerate(zip(batch_ids, batches, strict=True)):
                    parameters = batch.parameters.model_dump_json(exclude_none=True)
                    copy.write_row((batch_id, job_id, place >= tested, parameters))
            with cursor.copy(
                'COPY images (job_id, "index", batch_id, prompt, negative_prompt, seed, parameters) FROM STDIN'
            ) as copy:
                for batch_id, batch in zip(batch_ids, batches, strict=True):
                    for index in batch.indices:
                        image = plan.images[index]
                        own = json.dumps(own) if (own := image.own()) else None
                        copy.write_row((job_id, index, batch_id, image.prompt, image.negative_prompt, image.seed, own))
        details = {"test_images": row["test_images"]} if is_test else {}
        note(connection, owner, "job.submit", job_id, images=len(plan.images), **details)
        announce(connection, job_id, Announcement(Kind.JOB_SUBMITTED))
        wake_producer(connection)
    ignored = tuple(intake.ignored_columns)
    return Receipt(job_id, len(plan.images), len(batches), plan.seed, ignored, plan.spec.test_run if is_test else None)
