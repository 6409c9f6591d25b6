"""The pages: server-rendered, made live by htmx, usable without JavaScript."""

from datetime import UTC, datetime

from flask import Flask

from dashboard.pages import routes


def register_pages(app: Flask) -> None:
    """Add all pages, and the filters that their templates use."""
    app.register_blueprint(routes.blueprint)
    app.add_template_filter(duration)
    app.add_template_filter(ago)
    app.add_template_filter(thousands)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``42 s``, ``5 min``, ``3 h 20 min``."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def ago(moment: datetime) -> str:
    """How long ago it was."""
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def thousands(number: int) -> str:
    """A number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
