"""A farm over its HTTP API, asynchronously: all that the client can do is written here, once."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import quote

import httpx

from producer.client.connection import PATIENCE_SECONDS, Connection, Json
from producer.client.job import AsyncJob
from producer.client.pictures import Uploads, upload
from producer.client.submission import Prompts, Rows, submission
from producer.client.tables import Mapped, TableError

if TYPE_CHECKING:
    from producer.client.parameters import Parameters, PictureLike


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a submission would come to. Seconds are None where nothing was measured, or nobody is there to render."""

    image_count: int
    batch_count: int
    device_seconds: float | None
    """Added up over all devices."""
    seconds_until_done: float | None
    """From now, behind all that waits already."""
    workers: int


class AsyncFarm:
    """A connection to a farm. Without a URL: ``FARM_URL``, else the farm that ``farm up`` last recorded.

    Without an API token: ``FARM_TOKEN``, else what ``farm up`` recorded for this address. A farm that has answered once
    is given ``patience_seconds`` to come back when it does not.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.connection = Connection(url, token, patience_seconds)

    @property
    def url(self) -> str:
        """The farm's address."""
        return self.connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.connection.close()

    async def submit(
        self,
        prompts: Prompts | None = None,
        *,
        rows: Rows | None = None,
        file: str | Path | None = None,
        sweep: Mapping[str, list[Any]] | str | None = None,
        idempotency_key: str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> AsyncJob:
        """Submit prompts, rows (each with its prompt and what it sets for itself) or a file of them, as one job.

        ``sweep`` has parameters that take several values in turn. Pictures may be paths, bytes or PIL images; they are
        uploaded first. Rows may come from an iterator, however many. A submission that is made again under its
        ``idempotency_key`` is the same job; without one, it gets a key of its own, so that lost answers do no harm.

        Raises InvalidSubmissionError, and then nothing was submitted; RateLimitedError beyond a quota.
        """
        fields = {**parameters} if sweep is None else {**parameters, "sweep": sweep}
        path = None if file is None else Path(file)
        async with submission(Uploads(self.connection), fields, prompts, rows, path) as request:
            key = idempotency_key or str(uuid.uuid4())

            def arguments() -> dict[str, Any]:
                made = request()
                return {**made, "headers": {**made.get("headers", {}), "Idempotency-Key": key}}

            receipt = await self.connection.send("POST", "/api/v1/jobs", repeatable=True, arguments=arguments)
        document = await self.connection.send("GET", f"/api/v1/jobs/{receipt['id']}")
        return AsyncJob(self.connection, document, receipt)

    async def map(
        self,
        function: Callable[[Json], str | Mapping[str, Any]],
        table: Any,
        *,
        idempotency_key: str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> AsyncJob:
        """Submit what ``function`` makes of each row of a table, given as a dict: a prompt, or a dict of parameters.

        The table is a pandas or polars data frame, or a list of dicts. Images know their ``row``, the job its
        ``table``. Raises InvalidSubmissionError (its lines are rows, counted from 1) and TableError.
        """
        mapped = Mapped(function, table)
        return await self.submit_mapped(mapped, mapped.parameters(), idempotency_key, **parameters)

    async def submit_mapped(
        self, mapped: Mapped, rows: Rows, idempotency_key: str | None, **parameters: "Unpack[Parameters]"
    ) -> AsyncJob:
        """The same for rows that were made of a table."""
        for name in ("templates", "first"):
            if name in parameters:
                raise TableError(f"With {name} not every row has as many images; leave it out, or use farm.submit.")
        job = await self.submit(rows=rows, idempotency_key=idempotency_key, **parameters)
        mapped.submitted(job.counts.total)
        return job.with_table(mapped)

    async def estimate(
        self,
        prompts: Prompts | None = None,
        *,
        rows: Rows | None = None,
        file: str | Path | None = None,
        sweep: Mapping[str, list[Any]] | str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> Estimate:
        """What submitting the same would come to, without submitting it; raises InvalidSubmissionError."""
        fields = {**parameters} if sweep is None else {**parameters, "sweep": sweep}
        path = None if file is None else Path(file)
        async with submission(Uploads(self.connection), fields, prompts, rows, path) as request:
            answer = await self.connection.send("POST", "/api/v1/estimate", repeatable=True, arguments=request)
        return Estimate(**{name: answer[name] for name in Estimate.__dataclass_fields__})

    async def jobs(self, limit: int = 20, state: str | None = None) -> list[AsyncJob]:
        """The newest jobs, newest first; only those in this state, if one is given."""
        parameters: dict[str, str | int] = {"limit": limit} | ({"state": state} if state is not None else {})
        page = await self.connection.send("GET", "/api/v1/jobs", params=parameters)
        return [AsyncJob(self.connection, document) for document in page["jobs"]]

    async def job(self, job_id: int) -> AsyncJob:
        """One job, as it is now; raises NotFoundError."""
        return AsyncJob(self.connection, await self.connection.send("GET", f"/api/v1/jobs/{job_id}"))

    async def upload(self, picture: "PictureLike") -> str:
        """Store a picture that goes in, if it is not there yet; returns the name under which a spec speaks of it.

        Raises InvalidSubmissionError when it is no picture.
        """
        return await upload(self.connection, picture)

    async def pipelines(self) -> list[Json]:
        """The catalog's pipelines with their defaults and limits."""
        return await self._list("pipelines")

    async def workers(self) -> list[Json]:
        """All workers of the last hour, the living first."""
        return await self._list("workers")

    async def queues(self) -> list[Json]:
        """Per pipeline and stage: what waits, how long it will take, and what holds it up."""
        return await self._list("queues")

    async def words(self) -> dict[str, list[str]]:
        """The lists of words for prompt templates, by name."""
        answer = await self.connection.send("GET", "/api/v1/word-lists")
        return {entry["name"]: entry["words"] for entry in answer["word_lists"]}

    async def save_words(self, name: str, text: str) -> None:
        """Store a list of words, one a line; raises InvalidSubmissionError."""
        await self.connection.request("PUT", f"/api/v1/word-lists/{name}", content=text.encode())

    async def delete_words(self, name: str) -> None:
        """Remove a list of words; raises NotFoundError."""
        await self.connection.request("DELETE", f"/api/v1/word-lists/{name}")

    async def me(self) -> Json:
        """Who the token's user is: ``id``, ``name``, ``role``."""
        return await self.connection.send("GET", "/api/v1/me")

    async def shares(self) -> list[Json]:
        """Owners whose weight is not 1: how much they get beside others."""
        return list((await self.connection.send("GET", "/api/v1/shares"))["shares"])

    async def set_share(self, owner: str, weight: float) -> Json:
        """Give an owner a weight (above 0, at most 1000). For administrators."""
        return await self.connection.send("PUT", f"/api/v1/shares/{quote(owner, safe='')}", json={"weight": weight})

    async def users(self) -> list[Json]:
        """All users, for administrators."""
        return await self._list("users")

    async def add_user(self, name: str, role: str, password: str | None = None) -> Json:
        """Make a user, as administrator; raises InvalidSubmissionError."""
        body = {"name": name, "role": role, "password": password}
        return await self.connection.send("POST", "/api/v1/users", json=body)

    async def change_user(self, user_id: int, **changes: str | bool) -> Json:
        """Give a user another ``role`` or ``password``, or lock them out (``disabled``), as administrator."""
        return await self.connection.send("PATCH", f"/api/v1/users/{user_id}", json=changes)

    async def login_link(self, name: str | None = None) -> str:
        """A link that logs the token's user in once; for administrators also another user."""
        link: str = (await self.connection.send("POST", "/api/v1/login-links", json={"user": name}))["url"]
        return link

    async def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Anything else of the HTTP API (``/api/v1/...``), with httpx's arguments; raises FarmError."""
        return await self.connection.request(method, path, **arguments)

    async def _list(self, name: str) -> list[Json]:
        found: list[Json] = (await self.connection.send("GET", f"/api/v1/{name}"))[name]
        return found
