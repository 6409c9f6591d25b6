"""The pages: server-rendered, made live by events and htmx, usable without JavaScript."""

from flask import Flask

# Two modules add to one blueprint: importing them is enough.
from dashboard.pages import (
    account,
    activities,
    filters,
    jobs,  # noqa: F401
    login,
    operate,
    people,
    routes,
    submission,
    watching,
)


def register_pages(app: Flask) -> None:
    """Add all pages, and the filters that their templates use."""
    for module in (login, routes, watching, submission, operate, account, people, activities):
        app.register_blueprint(module.blueprint)
    for function in (filters.ago, filters.duration, filters.in_order, filters.thousands, filters.told):
        app.add_template_filter(function)
    app.add_template_filter(activities.in_words)
