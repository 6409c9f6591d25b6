"""The pages: server-rendered, made live by htmx, usable without JavaScript."""

from flask import Flask

# Two modules add to one blueprint: importing them is enough.
from dashboard.pages import filters, jobs, login, operate, routes, submission, watching  # noqa: F401


def register_pages(app: Flask) -> None:
    """Add all pages, and the filters that their templates use."""
    app.register_blueprint(login.blueprint)
    app.register_blueprint(operate.blueprint)
    app.register_blueprint(routes.blueprint)
    app.register_blueprint(watching.blueprint)
    app.register_blueprint(submission.blueprint)
    for function in (filters.ago, filters.duration, filters.in_order, filters.thousands, filters.told):
        app.add_template_filter(function)
