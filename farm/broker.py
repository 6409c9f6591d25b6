"""The broker: the Celery application, its queues, and the chain base | refiner.

The broker is a doorbell; Postgres is the truth. Messages carry a batch's id and attempt and nothing else. A lost
message is rung again by the producer, a doubled one finds its batch already claimed.

A queue has lists for each class of priority (``farm.priorities``). A worker reads the interactive lists of all its
queues before any list of bulk, and those of a higher class before those of a lower one.
"""

import base64
import json
from typing import Any

from celery import Celery, chain
from celery.canvas import Signature

from farm.errors import ConfigurationError
from farm.message_keys import MAX_NUMBER, sign
from farm.priorities import BULK_MESSAGES, INTERACTIVE_MESSAGE
from farm.settings import Settings
from farm.states import Stage

TASK_NAMES = {Stage.BASE: "farm.render_base", Stage.REFINER: "farm.render_refiner"}

TRANSPORT_OPTIONS = {
    # A half-open socket must not make a deaf worker: notice a dead peer within seconds, and reconnect.
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": True,
    # With all slots taken nothing may be fetched, and without this pause the worker's main loop would spin at 100% of
    # a core beside the rendering. It is also the longest that an idle worker takes to notice a message.
    "polling_interval": 0.05,
    # Messages are acknowledged before they are worked on, so "unacked" holds one for an instant only; when a
    # worker is killed in that instant the message goes back after this long. The claim makes a copy harmless.
    "visibility_timeout": 60,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Lists for each class (``farm.priorities``). Lists of one priority are read in the order in which a worker names
    # its queues: refiner before base, so that latents do not pile up in the store.
    "priority_steps": [INTERACTIVE_MESSAGE, *BULK_MESSAGES],
    "queue_order_strategy": "priority",
}


def queue_name(pipeline: str, stage: Stage, requires: str = "") -> str:
    """The queue of one pipeline's stage: ``tiny.base``. What only some workers may render has a queue of its own."""
    return f"{pipeline}.{stage.value}" + (f"@{requires}" if requires else "")


def make_celery(settings: Settings) -> Celery:
    """The Celery application; nothing is contacted yet."""
    if settings.broker_url is None:
        raise ConfigurationError(
            "No broker: set FARM_BROKER_URL (redis://...), or start the embedded farm with `farm up`."
        )
    app = Celery("sdxl-farm", broker=settings.broker_url)
    app.conf.update(
        # By which every message of this application is signed.
        farm_message_key=settings.message_key,
        # Postgres records outcomes; a result backend would only be a second, weaker truth.
        result_backend=None,
        task_ignore_result=True,
        # Two integers travel, and a message from a stranger must never be able to run code: no pickle.
        task_serializer="json",
        accept_content=["json"],
        # Acknowledge on receipt: a redelivery by the broker knows nothing of leases, and a task that kills its
        # process would come back for ever. The lease brings work back instead.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        # Fetch a message only when a slot is free: a batch waiting in a busy worker's memory could be neither
        # cancelled nor taken by an idle worker.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # Threads answer pings and renew leases while torch works (it releases the GIL), and nothing is ever forked
        # after CUDA was initialised. How many there are is in worker/slots.py.
        worker_pool="threads",
        # Outlive any outage of the broker, at start-up too.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A broker that is full refuses commands: by default that would end the process, and its pipeline with it.
        broker_channel_error_retry=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options=TRANSPORT_OPTIONS,
        # Of what a worker sends on to the refiner; ``ring`` sends once.
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5},
        # The refiner's message is of its base's class: Celery sends the chain's next one without a priority else.
        task_inherit_parent_priority=True,
        # Queues are made on first use, and published to by name alone: a named exchange would lose its bindings,
        # and with them every message, when the broker is flushed.
        task_create_missing_queues=True,
        task_default_queue="unused",
        # One log set-up, ours.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        enable_utc=True,
    )
    return app


def render_signature(
    app: Celery, pipeline: str, stage: Stage, batch_id: int, attempt: int, *, priority: int, requires: str = ""
) -> Signature[None]:
    """The message that rings for one stage of a batch; ``priority`` is a ``farm.priorities.message_priority``."""
    return app.signature(
        TASK_NAMES[stage],
        args=(batch_id, attempt),
        immutable=True,
        queue=queue_name(pipeline, stage, requires),
        priority=priority,
        headers=sign(app.conf.get("farm_message_key"), TASK_NAMES[stage], batch_id, attempt),
    )


def ring(
    app: Celery,
    pipeline: str,
    stage: Stage,
    batch_id: int,
    attempt: int,
    *,
    refined: bool,
    priority: int,
    requires: str = "",
) -> None:
    """Send a batch's messages from ``stage`` on: base and refiner as a chain, or the one stage that remains.

    Raises kombu's OperationalError when the broker does not take it; the batch then counts as lost and is rung
    again by recovery. Kombu is not to try again by itself: where it has to declare a queue anew it goes on with a
    channel that it has closed, and raises AttributeError.
    """
    message = render_signature(app, pipeline, stage, batch_id, attempt, priority=priority, requires=requires)
    if stage is Stage.BASE and refined:
        refiner = render_signature(
            app, pipeline, Stage.REFINER, batch_id, attempt, priority=priority, requires=requires
        )
        message = chain(message, refiner)
    message.apply_async(retry=False)


def waiting_messages(app: Celery, queue: str, *, interactive: bool) -> int:
    """How many messages wait in ``queue``, interactive or bulk."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        return sum(int(channel.client.llen(name)) for name in _lists(channel, queue, interactive=interactive))


def waiting_batches(app: Celery, queue: str, *, interactive: bool) -> set[tuple[int, int]]:
    """The ``(batch, attempt)`` pairs for which messages wait in ``queue``, interactive or bulk."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        names = _lists(channel, queue, interactive=interactive)
        return {one for name in names for message in channel.client.lrange(name, 0, -1) for one in _rung_for(message)}


def _lists(channel: Any, queue: str, *, interactive: bool) -> list[str]:
    """The Redis lists of a queue, which kombu names by their priority."""
    return [queue] if interactive else [f"{queue}{channel.sep}{step}" for step in BULK_MESSAGES]


def _rung_for(message: bytes) -> list[tuple[int, int]]:
    """The batch and attempt of a message as kombu keeps it; none if it is no message of ours."""
    try:
        (batch_id, attempt), *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
    except (ValueError, TypeError, LookupError, RecursionError):
        return []
    numbers = all(type(one) is int and 0 <= one <= MAX_NUMBER for one in (batch_id, attempt))
    return [(batch_id, attempt)] if numbers else []
