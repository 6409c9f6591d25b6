"""The Python client: talks to a farm over its HTTP API, and imports nothing heavy."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from PIL import Image

from farm.errors import FarmError, InvalidSubmissionError, NotFoundError, Problem
from farm.record import find_farm, find_token
from farm.spec import INPUT_FIELDS, listed
from producer.intake import read_file

Json = dict[str, Any]

#: Uploads and pictures may be large; an answer that does not come at all is noticed by the connection.
TIMEOUT = httpx.Timeout(60, connect=5)
FINAL_STATES = ("completed", "failed", "cancelled")
POLL_SECONDS = 0.3


class FarmUnreachableError(FarmError):
    """No farm answers at the address."""


class FarmRefusedError(FarmError):
    """The farm answered with an error other than about the submission's content."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"{detail} (HTTP {status})")


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """So many of a job's finished pictures are in the directory."""

    done: int
    total: int


class Farm:
    """A connection to a farm. Without a URL: ``FARM_URL``, else the farm that ``farm up`` last recorded.

    Without an API token: ``FARM_TOKEN``, else what ``farm up`` recorded for this address.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.url = (url or find_farm()).rstrip("/")
        token = token or find_token(self.url)
        # Redirects to a store on another host go without it: httpx sees to that.
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT, follow_redirects=True, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def submit_file(self, path: Path, fields: Mapping[str, Any]) -> Json:
        """Submit a file of prompts; raises InvalidSubmissionError. The receipt has the job's ``id`` and ``url``."""
        data = path.read_bytes()
        # Only tables and objects can name pictures, and only then is it worth reading them here.
        named = path.suffix == ".xlsx" or (path.suffix != ".txt" and b"image" in data)
        rows = read_file(path.name, data, fields.get("columns")).rows if named else []
        fields = self._with_inputs(fields, [row.values for row in rows], path.parent)
        form = {name: _form_value(value) for name, value in fields.items()}
        return self._send("POST", "/api/v1/jobs", data=form, files={"file": (path.name, data)})

    def submit(self, prompts: list[str], fields: Mapping[str, Any]) -> Json:
        """Submit prompts; raises InvalidSubmissionError. Pictures that ``fields`` name by their path are uploaded."""
        return self._send("POST", "/api/v1/jobs", json={**self._with_inputs(fields, [], Path()), "prompts": prompts})

    def submit_rows(self, rows: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> Json:
        """Submit rows, each with its prompt and what it sets for itself; raises InvalidSubmissionError."""
        return self._send("POST", "/api/v1/jobs", json={**self._with_inputs(fields, rows, Path()), "rows": [*rows]})

    def upload(self, picture: Path | bytes) -> str:
        """Store a picture that goes in, if it is not there yet; returns the name under which a spec speaks of it.

        Raises InvalidSubmissionError when it is no picture.
        """
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
        ref = f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            self._send("GET", f"/api/v1/inputs/{ref}")
        except NotFoundError:
            self._send("POST", "/api/v1/inputs", content=data)
        return ref

    def words(self) -> dict[str, list[str]]:
        """The lists of words for prompt templates, by name."""
        return {entry["name"]: entry["words"] for entry in self._send("GET", "/api/v1/word-lists")["word_lists"]}

    def save_words(self, name: str, text: str) -> None:
        """Store a list of words, one a line; raises InvalidSubmissionError."""
        self._send("PUT", f"/api/v1/word-lists/{name}", content=text.encode())

    def delete_words(self, name: str) -> None:
        """Remove a list of words; raises NotFoundError."""
        self._request("DELETE", f"/api/v1/word-lists/{name}")

    def jobs(self, limit: int = 20) -> list[Json]:
        """The newest jobs, newest first."""
        jobs: list[Json] = self._send("GET", "/api/v1/jobs", params={"limit": limit})["jobs"]
        return jobs

    def job(self, job_id: int) -> Json:
        """One job: state, counts, progress."""
        return self._send("GET", f"/api/v1/jobs/{job_id}")

    def workers(self) -> list[Json]:
        """All workers of the last hour, the living first."""
        workers: list[Json] = self._send("GET", "/api/v1/workers")["workers"]
        return workers

    def me(self) -> Json:
        """Who the token's user is: ``id``, ``name``, ``role``."""
        return self._send("GET", "/api/v1/me")

    def users(self) -> list[Json]:
        """All users, for administrators."""
        users: list[Json] = self._send("GET", "/api/v1/users")["users"]
        return users

    def add_user(self, name: str, role: str, password: str | None = None) -> Json:
        """Make a user, as administrator; raises InvalidSubmissionError."""
        return self._send("POST", "/api/v1/users", json={"name": name, "role": role, "password": password})

    def change_user(self, user_id: int, **changes: str | bool) -> Json:
        """Give a user another ``role`` or ``password``, or lock them out (``disabled``), as administrator."""
        return self._send("PATCH", f"/api/v1/users/{user_id}", json=changes)

    def login_link(self, name: str | None = None) -> str:
        """A link that logs the token's user in once; for administrators also another user."""
        link: str = self._send("POST", "/api/v1/login-links", json={"user": name})["url"]
        return link

    def wait(self, job_id: int, on_progress: Callable[[Json], None] | None = None) -> Json:
        """Wait until a job, or its test run, has ended; returns the job. ``on_progress`` sees it at every look."""
        while True:
            job = self.job(job_id)
            if on_progress is not None:
                on_progress(job)
            if job["state"] in FINAL_STATES or test_run_ended(job):
                return job
            time.sleep(POLL_SECONDS)

    def cancel(self, job_id: int) -> Json:
        """Cancel a job; what is finished is kept."""
        return self._send("POST", f"/api/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: int) -> Json:
        """Let no further batch of a job begin."""
        return self._send("POST", f"/api/v1/jobs/{job_id}/pause")

    def resume(self, job_id: int) -> Json:
        """Go on with a paused job, or with what follows a test run."""
        return self._send("POST", f"/api/v1/jobs/{job_id}/resume")

    def images(self, job_id: int, state: str | None = None) -> Iterator[Json]:
        """All images of a job in the order of their index, fetched page by page."""
        after: int | None = None
        while True:
            parameters = {"limit": 500, "after": after, "state": state}
            page = self._send(
                "GET",
                f"/api/v1/jobs/{job_id}/images",
                params={name: value for name, value in parameters.items() if value is not None},
            )
            yield from page["images"]
            after = page["next"]
            if after is None:
                return

    def picture(self, image: Json) -> Image.Image:
        """A finished image, one of ``images``, as a picture; of latents their thumbnail."""
        url = image["thumbnail_url" if image["output_format"] == "latents" else "file_url"]
        return Image.open(io.BytesIO(self._request("GET", url).content))

    def download(
        self, job_id: int, directory: Path, on_progress: Callable[[DownloadProgress], None] | None = None
    ) -> list[Path]:
        """Save a job's finished pictures as ``000017_seed59.png``; those already there are kept.

        A file appears under its name only when it is complete. Returns the paths in the order of the index.
        """
        directory.mkdir(parents=True, exist_ok=True)
        total = self.job(job_id)["images"]["completed"]
        paths = []
        for image in self.images(job_id, state="completed"):
            path = directory / image["download_name"]
            if not path.exists():
                partial = path.with_name(path.name + ".part")
                partial.write_bytes(self._request("GET", image["file_url"]).content)
                partial.replace(path)
            paths.append(path)
            if on_progress is not None:
                on_progress(DownloadProgress(len(paths), total))
        return paths

    def _with_inputs(
        self, fields: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], directory: Path
    ) -> dict[str, Any]:
        """The fields, with the files that they and the rows name uploaded. A row's paths start in ``directory``."""
        uploaded: dict[str, str] = dict(fields.get("inputs") or {})
        for values, start in ((fields, Path()), *((row, directory) for row in rows)):
            for field in INPUT_FIELDS:
                for name in listed(values[field]) if values.get(field) is not None else ():
                    # What is no file is left to the farm, which knows the line to complain about.
                    if isinstance(name, str) and name not in uploaded and (start / name).is_file():
                        uploaded[name] = self.upload(start / name)
        return {**fields, "inputs": uploaded} if uploaded else dict(fields)

    def _send(self, method: str, path: str, **arguments: Any) -> Json:
        answer: Json = self._request(method, path, **arguments).json()
        return answer

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise FarmUnreachableError(
                f"No farm answers at {self.url} ({error}). Start one with `farm up`, or set FARM_URL."
            ) from error
        if response.is_error:
            raise _error_of(response)
        return response


def test_run_ended(job: Json) -> bool:
    """Whether all that a test run renders is rendered, and the rest waits for somebody."""
    counts = job["images"]
    return job["test_images"] is not None and counts["completed"] + counts["failed"] >= job["test_images"]


def _form_value(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)


def _error_of(response: httpx.Response) -> FarmError:
    if "json" not in response.headers.get("content-type", ""):
        return FarmRefusedError(response.status_code, response.reason_phrase)
    problem = response.json()
    if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        problems = [Problem(item["field"], item["message"], item.get("line")) for item in problem.get("errors", [])]
        return InvalidSubmissionError(problems, problem.get("error_count"))
    detail = problem.get("detail") or problem.get("title") or response.reason_phrase
    if response.status_code == httpx.codes.NOT_FOUND:
        return NotFoundError(detail)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        detail = "This farm wants to know who you are: make an API token on its page Account, and set FARM_TOKEN."
    return FarmRefusedError(response.status_code, detail)
