"""The HTTP API, JSON under ``/api/v1``."""

from flask import Flask

from dashboard.api import (
    activities,
    archive,
    autoscaling,
    estimates,
    events,
    health,
    images,
    inputs,
    jobs,
    people,
    pipelines,
    presets,
    queues,
    reference,
    retention,
    shares,
    signed,
    webhooks,
    word_lists,
    workers,
)
from dashboard.api.operations import refuse_other_parameters
from dashboard.api.submission import close_large_body


def register_api(app: Flask) -> None:
    """Add all routes of the API."""
    for module in (jobs, estimates, images, archive, inputs, pipelines, presets, queues, word_lists, workers):
        app.register_blueprint(module.blueprint, url_prefix="/api/v1")
    for module in (people, activities, autoscaling, events, retention, shares, webhooks, reference):
        app.register_blueprint(module.blueprint, url_prefix="/api/v1")
    app.before_request(refuse_other_parameters)
    app.teardown_request(close_large_body)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(signed.blueprint)
