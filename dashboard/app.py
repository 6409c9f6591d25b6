"""The Flask application."""

from http import HTTPStatus

from flask import Flask, render_template
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from dashboard.api import register_api
from dashboard.api.problems import invalid_submission, not_found, problem, wants_problem
from dashboard.context import EXTENSION, Context
from dashboard.pages import register_pages
from dashboard.security import register_security
from farm.catalog import Catalog
from farm.database import open_database
from farm.errors import InvalidSubmissionError, NotFoundError, ObjectMissingError, StoreError
from farm.progress import ProgressBoard
from farm.settings import Settings
from farm.storage import open_store

#: More fields than a form of ours ever has.
MAX_FORM_PARTS = 100
MAX_FORM_MEMORY = 32 * 2**20


def create_app(settings: Settings) -> Flask:
    """The application; nothing is contacted before the first request."""
    app = Flask(__name__)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_mib * 2**20,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_MEMORY,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    app.extensions[EXTENSION] = Context(
        settings=settings,
        engine=open_database(settings, pool_size=10),
        store=open_store(settings),
        board=ProgressBoard(settings),
        catalog=Catalog.load(settings.catalog),
    )
    register_security(app, settings)
    register_api(app)
    register_pages(app)
    _register_errors(app)
    return app


def _register_errors(app: Flask) -> None:
    @app.errorhandler(InvalidSubmissionError)
    def refused(error: InvalidSubmissionError) -> Response:
        return invalid_submission(error)

    @app.errorhandler(NotFoundError)
    @app.errorhandler(ObjectMissingError)
    def missing(error: NotFoundError) -> Response | tuple[str, int]:
        if wants_problem():
            return not_found(error)
        return render_template("error.html", title="Not found", detail=str(error)), HTTPStatus.NOT_FOUND

    @app.errorhandler(StoreError)
    def store_away(error: StoreError) -> Response:
        return problem(HTTPStatus.BAD_GATEWAY, str(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response | tuple[str, int]:
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        detail = error.description or status.phrase
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            limit = app.extensions[EXTENSION].settings.max_upload_mib
            detail = f"The upload exceeds the {limit} MiB that this farm accepts (FARM_MAX_UPLOAD_MIB)."
        if wants_problem():
            return problem(status, detail)
        return render_template("error.html", title=status.phrase, detail=detail), status
