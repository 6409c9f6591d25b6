"""APIs of other services, so that programs written for them can use the farm: OpenAI's pictures, A1111's web UI.

Each is a translation at the door: what is asked becomes a job of the farm like any other, of the priority of those who
wait. docs/compatible.md says what is carried over, and what is not.
"""

from flask import Flask

from dashboard.compatible import openai, web_ui


def register_compatible(app: Flask) -> None:
    """Add all their routes."""
    app.register_blueprint(openai.blueprint, url_prefix="/v1")
    app.register_blueprint(web_ui.blueprint, url_prefix="/sdapi/v1")
