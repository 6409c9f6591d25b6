"""Doors that every request passes: no foreign site may post, no page may load or run anything foreign."""

from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import Forbidden

from farm.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def register_security(app: Flask, settings: Settings) -> None:
    """Add the checks before, and the headers after, every request."""
    pictures = ""
    if settings.s3_public_endpoint_url:
        parts = urlsplit(settings.s3_public_endpoint_url)
        pictures = f" {parts.scheme}://{parts.netloc}"
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:{pictures}; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )

    @app.before_request
    def refuse_foreign_posts() -> None:
        """A page of another site can send forms here with the visitor's network position; browsers tell on it."""
        if request.method in SAFE_METHODS:
            return
        site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get("Origin")
        foreign = (
            site not in ("same-origin", "none")
            if site
            else origin is not None and urlsplit(origin).netloc != request.host
        )
        if foreign:
            raise Forbidden("This request comes from another site.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("X-Frame-Options", "DENY")
        response.headers.setdefault("Referrer-Policy", "same-origin")
        return response
