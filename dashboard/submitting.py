"""The one way in for jobs: in the name of who asks."""

from typing import Any

from dashboard.auth import identity
from dashboard.context import context
from producer.intake import Intake
from producer.submit import Receipt, submit_job


def submit(fields: dict[str, Any], intake: Intake) -> Receipt:
    """Accept a job of whoever asks; raises InvalidSubmissionError, and then nothing was written."""
    farm = context()
    return submit_job(farm.engine, farm.catalog, farm.settings.pipeline, fields, intake, identity().name)
