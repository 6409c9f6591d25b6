"""The HTTP API, JSON under ``/api/v1``."""

from flask import Flask

from dashboard.api import (
    activities,
    archive,
    health,
    images,
    inputs,
    jobs,
    people,
    pipelines,
    queues,
    word_lists,
    workers,
)


def register_api(app: Flask) -> None:
    """Add all routes of the API."""
    for module in (jobs, images, archive, inputs, pipelines, queues, word_lists, workers, people, activities):
        app.register_blueprint(module.blueprint, url_prefix="/api/v1")
    app.register_blueprint(health.blueprint)
