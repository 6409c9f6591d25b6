"""The Flask application."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from dashboard.api import register_api
from dashboard.arguments import NumberConverter
from dashboard.auth import register_auth
from dashboard.compatible import register_compatible
from dashboard.context import EXTENSION, Context
from dashboard.errors import register_errors
from dashboard.news import News
from dashboard.pages import register_pages
from dashboard.prometheus import register_prometheus
from dashboard.request_ids import register_request_ids
from dashboard.security import register_security
from farm.catalog import Catalog
from farm.database import open_database
from farm.progress import ProgressBoard
from farm.settings import Settings
from farm.storage import open_store

#: More fields than a form of ours ever has.
MAX_FORM_PARTS = 200
MAX_FORM_MEMORY = 32 * 2**20


def create_app(settings: Settings) -> Flask:
    """The application; nothing is contacted before the first request."""
    app = Flask(__name__)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_mib * 2**20,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_MEMORY,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.url_map.converters["int"] = NumberConverter
    app.extensions[EXTENSION] = Context(
        settings=settings,
        engine=open_database(settings, pool_size=10),
        store=open_store(settings),
        board=ProgressBoard(settings),
        catalog=Catalog.load(settings.catalog, settings.models_directory),
        news=News(settings),
    )
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
    register_request_ids(app)
    register_security(app, settings)
    register_auth(app)
    register_api(app)
    register_compatible(app)
    register_pages(app)
    register_prometheus(app, settings)
    register_errors(app)
    return app
