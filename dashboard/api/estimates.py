"""How long a job would take, without submitting it."""

from flask import Blueprint, Response, jsonify

from dashboard.api.operations import describe
from dashboard.api.schemas.submission import SUBMISSION, EstimateDocument, StreamQuery
from dashboard.api.submission import read_submission
from dashboard.context import context
from farm.batch_sizes import find_batch_sizes
from producer.estimate import estimate, tally
from producer.expand import Expansion
from producer.inputs import find_inputs
from producer.throughput import throughput
from producer.words import word_lists

blueprint = Blueprint("api_estimates", __name__)


@blueprint.post("/estimate")
@describe("jobs", {200: EstimateDocument}, body=SUBMISSION, query=StreamQuery)
def create() -> Response:
    """The body is that of a submission; the answer has images, batches and seconds, which are null if unmeasured."""
    sent = read_submission()
    farm = context()
    expansion = Expansion(
        farm.catalog,
        farm.settings.pipeline,
        sent.fields,
        lambda refs: find_inputs(farm.engine, refs),
        lambda: word_lists(farm.engine),
    )
    counted = tally(
        expansion,
        sent.intake.rows,
        find_batch_sizes(farm.engine, expansion.pipeline, expansion.spec.batch_size),
    )
    known = throughput(farm.engine, expansion.pipeline.name, farm.settings.lease_seconds)
    found = estimate(counted.work, known)
    return jsonify(
        {
            "image_count": counted.image_count,
            "batch_count": counted.batch_count,
            "device_seconds": found.device_seconds,
            "seconds_until_done": found.seconds_until_done,
            "workers": sum(known.workers.values()),
        }
    )
