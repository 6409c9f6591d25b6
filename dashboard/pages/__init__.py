"""The pages: server-rendered, made live by htmx, usable without JavaScript."""

from flask import Flask

from dashboard.pages import filters, login, presets, routes, submission, words


def register_pages(app: Flask) -> None:
    """Add all pages, and the filters that their templates use."""
    app.register_blueprint(login.blueprint)
    app.register_blueprint(routes.blueprint)
    app.register_blueprint(submission.blueprint)
    app.register_blueprint(presets.blueprint)
    app.register_blueprint(words.blueprint)
    for function in (filters.ago, filters.duration, filters.in_order, filters.thousands, filters.told):
        app.add_template_filter(function)
