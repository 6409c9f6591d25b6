"""What keeps pages live: streams of events, and fragments for pages that must ask."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from flask import Blueprint, Response, render_template, request

from dashboard.context import Context, context
from dashboard.live import Event, stream
from dashboard.pages.jobs import jobs_page, live_parts
from dashboard.queries.images import COMMIT_SECONDS, ImageView, ended_since
from dashboard.queries.previews import previewed_images
from dashboard.queries.watching import watch_job

blueprint = Blueprint("watching", __name__)

#: More tiles than this at once, and the page is better loaded anew.
TILES_AT_ONCE = 500
#: 31 December 9999, in milliseconds: the last moment that Python can tell.
LAST_MOMENT = 253_402_214_400_000


@dataclass(frozen=True, slots=True)
class JobTick:
    """What the page of a job learns at one look."""

    at: datetime
    status: str
    tiles: tuple[tuple[datetime, str], ...]
    """Tiles of the images that ended of late, by the look that found them: a stream may miss looks, but no news."""
    previews: str
    """Which images can be seen while they are denoised, as JSON."""
    said: str
    """For screen readers, who hear of progress in large steps."""
    state: str
    """Changes when other buttons are to be shown."""
    ended: bool
    told: frozenset[int] = field(default=frozenset())
    """Images of which this look or the one before has told: a transaction may show up late."""

    @property
    def number(self) -> str:
        """Its moment in milliseconds, which a browser that comes back tells us."""
        return str(int(self.at.timestamp() * 1000))


@blueprint.get("/jobs/<int:job_id>/events")
def job_events(job_id: int) -> Response:
    """The job's numbers and its pictures, as they change; ``since`` (milliseconds) tells what the page knows."""
    farm = context()
    watch_job(farm.engine, farm.board, job_id)
    since = _moment(request.headers.get("Last-Event-ID") or request.args.get("since"))
    last: JobTick | None = None

    def look() -> tuple[list[Event], bool]:
        nonlocal last
        farm.board.watch(job_id)
        tick = farm.shared.get(("job", job_id), lambda before: look_at_job(farm, job_id, before))
        if since is not None and tick.at < since:
            # Seen for others before this page was made: it knows better.
            return [], False
        events: list[Event] = []
        if last is None and since is not None:
            missed = ended_since(farm.engine, job_id, since, None, TILES_AT_ONCE)
            if len(missed) == TILES_AT_ONCE:
                return [("reload", tick.number, "")], True
            if missed:
                events.append(("tiles", tick.number, _tiles(missed)))
        elif last is not None:
            events += [("tiles", tick.number, html) for at, html in tick.tiles if at > last.at]
        events += [
            (name, tick.number, getattr(tick, name))
            for name in ("status", "previews", "said", "state")
            if last is None or getattr(tick, name) != getattr(last, name)
        ]
        last = tick
        return events, tick.ended

    return stream(look)


@blueprint.get("/jobs/events")
def jobs_events() -> Response:
    """The list of jobs, as it changes."""
    farm = context()
    shown: str | None = None
    key = ("jobs", request.query_string)

    def look() -> tuple[list[Event], bool]:
        nonlocal shown
        page = farm.shared.get(key, lambda _before: render_template("_jobs.html", **jobs_page()))
        if page == shown:
            return [], False
        shown = page
        return [("status", "0", page)], False

    return stream(look)


def look_at_job(farm: Context, job_id: int, before: JobTick | None) -> JobTick:
    """What there is to be seen of a job now, and what is new since the look before."""
    watched = watch_job(farm.engine, farm.board, job_id)
    now = watched.view.now
    since = before.at if before is not None else now
    ended = ended_since(farm.engine, job_id, since, None, TILES_AT_ONCE)
    news = [tile for tile in ended if before is None or tile.image.index not in before.told]
    recently = now - timedelta(seconds=2 * COMMIT_SECONDS)
    kept = tuple(entry for entry in before.tiles if entry[0] > recently) if before is not None else ()
    job = watched.view.job
    return JobTick(
        at=now,
        status=render_template("_job_numbers.html", **live_parts(watched)),
        tiles=(*kept, (now, _tiles(news))) if news else kept,
        previews=_previews(farm, job_id, now),
        said=render_template("_announcement.html", **live_parts(watched)),
        state=watched.buttons,
        ended=job.finished_at is not None,
        told=frozenset(tile.image.index for tile in ended if (tile.image.finished_at or now) > recently),
    )


def _previews(farm: Context, job_id: int, now: datetime) -> str:
    """Changes with every look while there is something to see: then there is something newer each time."""
    images = previewed_images(farm.engine, farm.board, job_id)
    return json.dumps({"job": job_id, "at": int(now.timestamp() * 1000), "images": images}) if images else ""


def _tiles(tiles: Sequence[ImageView]) -> str:
    return "".join(render_template("_tile.html", tile=tile, out_of_band=True) for tile in tiles)


def _moment(text: str | None) -> datetime | None:
    if text is None or not (text.isascii() and text.isdigit()) or int(text) > LAST_MOMENT:
        return None
    return datetime.fromtimestamp(int(text) / 1000, UTC)
