"""The pages: server-rendered, made live by events and htmx, usable without JavaScript."""

from flask import Flask

from dashboard.pages import (
    account,
    activities,
    compare,
    filters,
    gallery,
    grid,
    jobs,
    login,
    operate,
    people,
    pictures,
    presets,
    reference,
    submission,
    watching,
    webhooks,
    words,
)


def register_pages(app: Flask) -> None:
    """Add all pages, and the filters that their templates use."""
    for module in (login, jobs, watching, submission, presets, words, gallery, pictures, compare, grid, operate):
        app.register_blueprint(module.blueprint)
    for module in (account, people, activities, webhooks, reference):
        app.register_blueprint(module.blueprint)
    for function in (filters.ago, filters.duration, filters.in_order, filters.thousands, filters.told):
        app.add_template_filter(function)
    app.add_template_filter(activities.in_words)
