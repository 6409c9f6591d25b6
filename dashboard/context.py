"""What every request works with: database, store, progress board, catalog."""

from dataclasses import dataclass, field
from typing import cast

from flask import current_app
from sqlalchemy import Engine

from dashboard.live import Shared
from dashboard.news import News
from farm.catalog import Catalog
from farm.progress import ProgressBoard
from farm.settings import Settings
from farm.storage import ObjectStore

EXTENSION = "sdxl-farm"


@dataclass(frozen=True, slots=True)
class Context:
    """The farm as the dashboard sees it."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    board: ProgressBoard
    catalog: Catalog
    news: News
    shared: Shared = field(default_factory=Shared)
    """What many look at, computed for all of them."""


def context() -> Context:
    """The context of the running application."""
    return cast("Context", current_app.extensions[EXTENSION])
