"""How long a job would take, without submitting it."""

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from dashboard.api.problems import invalid_submission, problem
from dashboard.api.submission import json_pointer, read_form, read_json_object, split_json
from dashboard.context import context
from dashboard.queries.throughput import throughput
from farm.errors import InvalidSubmissionError
from producer.estimate import estimate, work_of
from producer.inputs import find_inputs
from producer.intake import Intake
from producer.preview import estimate_plan
from producer.words import word_lists

blueprint = Blueprint("api_estimates", __name__)


@blueprint.post("/estimate")
def create() -> Response:
    """The body is that of a submission; the answer has images, batches and seconds, which are null if unmeasured."""
    if request.mimetype == "application/json":
        body = read_json_object()
        try:
            return _estimate(*split_json(body))
        except InvalidSubmissionError as error:
            return invalid_submission(error, partial(json_pointer, body))
    if request.mimetype == "multipart/form-data":
        return _estimate(*read_form())
    return problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json, or multipart/form-data with the part 'file'."
    )


def _estimate(fields: dict[str, object], intake: Intake) -> Response:
    farm = context()
    plan, batches = estimate_plan(
        farm.catalog,
        farm.settings.pipeline,
        fields,
        intake,
        lambda refs: find_inputs(farm.engine, refs),
        lambda: word_lists(farm.engine),
    )
    known = throughput(farm.engine, plan.pipeline.name, farm.settings.lease_seconds)
    found = estimate(work_of(batches), known)
    return jsonify(
        {
            "image_count": len(plan.planned),
            "batch_count": len(batches),
            "device_seconds": found.device_seconds,
            "seconds_until_done": found.seconds_until_done,
            "workers": sum(known.workers.values()),
        }
    )
