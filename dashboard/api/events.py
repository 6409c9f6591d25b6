"""What happens, as it happens: streams of the events of a job and of the farm, which can be resumed without loss."""

import json
import re
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import Engine, select

from dashboard.api.jobs import job_json
from dashboard.api.operations import EVENT_STREAM, describe
from dashboard.api.schemas.farm import FarmEventsQuery, JobEventsQuery
from dashboard.context import Context, context
from dashboard.live import Event, stream
from dashboard.queries.jobs import get_job
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.events import KINDS, Happened, farm_events, job_events, last_place
from farm.models import Job

blueprint = Blueprint("api_events", __name__)

EVENTS_AT_ONCE = 500
#: What an event of a job, and of the farm, is named by.
NUMBER, PLACE = r"\d{1,19}", r"\d{1,19}\.\d{1,19}"
#: Told at most once a second, and not again: how far a job is.
PROGRESS = "progress"
_MAX = 2**63 - 1


def _resume(form: str) -> dict[str, dict[str, str]]:
    # Readers that have seen none may send an empty one.
    return {"Last-Event-ID": {"description": "Go on after the event with this id.", "pattern": f"^({form})?$"}}


@blueprint.get("/jobs/<int:job_id>/events")
@describe("events", {200: EVENT_STREAM}, query=JobEventsQuery, headers=_resume(NUMBER))
def of_job(job_id: int) -> Response:
    """Events of a job, from its first one, or after the one that ``Last-Event-ID`` or ``after`` names."""
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    kinds = _kinds((*KINDS, PROGRESS))
    (after,) = _after(NUMBER, "the number of an event") or (0,)
    told: dict[str, Any] | None = None

    def look() -> tuple[list[Event], bool]:
        nonlocal after, told
        # Read first: what had ended by then has written its last event, too.
        ended = _has_ended(farm.engine, job_id)
        happened = job_events(farm.engine, job_id, after, EVENTS_AT_ONCE, kinds)
        events = [_told(one, str(one.id)) for one in happened]
        if happened:
            after = happened[-1].id
        complete = ended and len(happened) < EVENTS_AT_ONCE
        if not complete and (kinds is None or PROGRESS in kinds):
            progress = farm.shared.get(("progress", job_id), lambda _before: _progress(farm, job_id))
            if progress and (told is None or any(progress[name] != told[name] for name in ("progress", "images"))):
                told = progress
                events.append((PROGRESS, "", json.dumps(progress)))
        return events, complete

    return stream(look, farm.news.of(job_id))


@blueprint.get("/events")
@describe("events", {200: EVENT_STREAM}, query=FarmEventsQuery, headers=_resume(PLACE))
def of_farm() -> Response:
    """Events of all jobs, from now on, or after the one that ``Last-Event-ID`` or ``after`` names."""
    farm = context()
    kinds = _kinds(KINDS)
    given = _after(PLACE, "the id of an event, two numbers with a dot")
    transaction, number = given or last_place(farm.engine)
    # A reader whose connection breaks before anything happened comes back to here.
    begin: list[Event] = [] if given else [("begin", f"{transaction}.{number}", "{}")]

    def look() -> tuple[list[Event], bool]:
        nonlocal transaction, number
        happened = farm_events(farm.engine, (transaction, number), EVENTS_AT_ONCE, kinds)
        events = begin + [_told(one, one.place) for one in happened]
        begin.clear()
        if happened:
            transaction, number = happened[-1].transaction, happened[-1].id
        return events, False

    return stream(look, farm.news.of(None))


def _told(happened: Happened, number: str) -> Event:
    return happened.kind, number, json.dumps(happened.as_json())


def _progress(farm: Context, job_id: int) -> dict[str, Any] | None:
    """How far a job is; None when it is not there any more."""
    try:
        view = get_job(farm.engine, farm.board, job_id)
    except NotFoundError:
        return None
    shown = ("progress", "images", "images_per_minute", "seconds_left")
    job = job_json(view)
    return {"kind": PROGRESS, "job_id": job_id, **{name: job[name] for name in shown}}


def _has_ended(engine: Engine, job_id: int) -> bool:
    """Whether there is nothing more to come, as it is now."""
    with engine.connect() as connection:
        row = connection.execute(select(Job.finished_at).where(Job.id == job_id)).one_or_none()
    return row is None or row.finished_at is not None


def _kinds(known: Sequence[str]) -> list[str] | None:
    """What the stream is narrowed to; None is all."""
    given = request.args.get("kinds")
    if not given:
        return None
    kinds = [kind.strip() for kind in given.split(",")]
    for kind in kinds:
        if kind not in known:
            raise InvalidSubmissionError([Problem("kinds", f"must be some of {', '.join(known)}, with commas between")])
    return kinds


def _after(form: str, words: str) -> tuple[int, ...] | None:
    """What the reader knows already: the header of one that comes back, else ``after``."""
    said = {"Last-Event-ID": request.headers.get("Last-Event-ID"), "after": request.args.get("after")}
    for field, given in said.items():
        if given and not re.fullmatch(form, given, re.ASCII):
            raise InvalidSubmissionError([Problem(field, f"must be {words}")])
    given = said["Last-Event-ID"] or said["after"]
    return tuple(min(int(part), _MAX) for part in given.split(".")) if given else None
