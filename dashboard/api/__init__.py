"""The HTTP API, JSON under ``/api/v1``."""

from flask import Flask

from dashboard.api import estimates, health, images, inputs, jobs, pipelines, presets, word_lists, workers


def register_api(app: Flask) -> None:
    """Add all routes of the API."""
    for module in (jobs, estimates, images, inputs, pipelines, presets, word_lists, workers):
        app.register_blueprint(module.blueprint, url_prefix="/api/v1")
    app.register_blueprint(health.blueprint)
