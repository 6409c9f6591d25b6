"""Sends deliveries to webhooks, signed by the Standard Webhooks scheme: in every producer, leader or not.

Each delivery is claimed before it is sent, by moving its next attempt beyond any time-out: of several senders one tries
it, and one that dies in between loses nothing. What a receiver got although its answer was lost comes again: at least
once.
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from standardwebhooks import Webhook as Signature

from farm.addresses import AllowedHosts
from farm.database import DELIVERIES_CHANNEL
from farm.errors import AddressRefusedError, UnreachableError
from farm.faults import reach
from farm.outside import Answer, ask, read_url
from farm.webhooks import Due, claim_due, note_delivered, note_in_vain

logger = logging.getLogger(__name__)

#: Deliveries that are sent at once, and those of one webhook among them: slow receivers hold up only themselves.
PLACES = 64
SHARE = 8
TIMEOUT_SECONDS = 10.0
#: Nobody rings when a delivery is to be tried again.
LOOK_SECONDS = 1.0
#: Deliveries that are being sent when the producer stops may still be answered for so long.
STOP_SECONDS = 2.0
#: Texts of an event's details are cut to so many characters: messages stay small.
MAX_TEXT_CHARACTERS = 1_000


def send_deliveries(engine: Engine, database_url: str, allowed: AllowedHosts, stop: threading.Event) -> int:
    """Send what is due as soon as it is, until ``stop`` is set. Raises OperationalError when the database is away."""
    return asyncio.run(_Sender(engine, allowed, stop).run(database_url))


def message(due: Due) -> str:
    """What is sent: the event's kind, its time, what it happened to, and the job as it is now."""
    data = due.event.as_json()
    if due.event.details is not None:
        data["details"] = {name: _shortened(value) for name, value in due.event.details.items()}
    if due.event.job_id is None:
        data = {}
    else:
        data["job"] = due.job
    body = {"type": due.event.kind, "timestamp": due.event.at.isoformat(), "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def headers(due: Due, body: str, now: datetime) -> dict[str, str]:
    """The scheme's headers. The id is the event's: the same over all attempts and replays."""
    message_id = f"evt_{due.event.id}"
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Signature(secret).sign(message_id, now, body) for secret in due.secrets),
    }


class _Sender:
    def __init__(self, engine: Engine, allowed: AllowedHosts, stop: threading.Event) -> None:
        self._engine = engine
        self._allowed = allowed
        self._stop = stop
        self._sending: dict[asyncio.Task[None], int] = {}
        self._bell = asyncio.Event()

    async def run(self, database_url: str) -> int:
        listener = asyncio.create_task(self._listen(database_url))
        try:
            while not self._stop.is_set():
                self._bell.clear()
                if listener.done():
                    listener.result()
                if not await self._begin():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._bell.wait(), LOOK_SECONDS)
            if self._sending:
                await asyncio.wait(self._sending, timeout=STOP_SECONDS)
        finally:
            rest = [listener, *self._sending]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        return 0

    async def _begin(self) -> bool:
        """Begin what is due and has a place. Whether there was anything."""
        places = PLACES - len(self._sending)
        if places == 0:
            return False
        found = await asyncio.to_thread(claim_due, self._engine, places, SHARE, Counter(self._sending.values()))
        for due in found:
            task = asyncio.create_task(self._send(due))
            self._sending[task] = due.webhook_id
            task.add_done_callback(self._ended)
        return bool(found)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._sending[task]
        self._bell.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is tried again when its time comes.
            known = isinstance(error, OperationalError)
            logger.error("what became of a delivery is unknown: %s", error, exc_info=None if known else error)

    async def _send(self, due: Due) -> None:
        status, error = None, None
        try:
            answer = await self._post(due)
            status = answer.status
            if not 200 <= status < 300:
                error = f"answered {status}"
        except (AddressRefusedError, UnreachableError) as refusal:
            error = str(refusal)
        reach("webhooks.sent")
        if error is None and status is not None:
            await asyncio.to_thread(note_delivered, self._engine, due, status)
        else:
            logger.info("webhook %d, delivery %d, attempt %d: %s", due.webhook_id, due.delivery_id, due.attempt, error)
            await asyncio.to_thread(note_in_vain, self._engine, due, status, error or "")

    async def _post(self, due: Due) -> Answer:
        url = read_url(due.url, self._allowed, https=True)
        body = message(due)
        return await ask(
            "POST",
            url,
            allowed=self._allowed,
            seconds=TIMEOUT_SECONDS,
            headers=headers(due, body, datetime.now(UTC)),
            content=body.encode(),
        )

    async def _listen(self, database_url: str) -> None:
        url = make_url(database_url).set(drivername="postgresql")
        connection = await psycopg.AsyncConnection.connect(
            url.render_as_string(hide_password=False),
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=2,
            application_name="sdxl-farm webhooks",
        )
        async with connection:
            await connection.execute(f"LISTEN {DELIVERIES_CHANNEL}")
            async for _ in connection.notifies():
                self._bell.set()


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return value[:MAX_TEXT_CHARACTERS] + "…"
    return value
