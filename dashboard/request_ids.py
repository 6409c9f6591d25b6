"""Each request has an id, which its answer tells and all that is logged meanwhile."""

import re
import secrets
from contextlib import ExitStack

from flask import Flask, Response, g, request

from farm.logs import about

HEADER = "X-Request-ID"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def register_request_ids(app: Flask) -> None:
    """Take the id that a proxy or a caller gives, or make one."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _ACCEPTABLE.fullmatch(given) else secrets.token_hex(8)
        g.logged_about = ExitStack()
        g.logged_about.enter_context(about(request=g.request_id))

    @app.after_request
    def tell(response: Response) -> Response:
        if "request_id" in g:
            response.headers[HEADER] = g.request_id
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if (logged := g.pop("logged_about", None)) is not None:
            logged.close()
