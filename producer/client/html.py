"""How a job shows itself in a notebook."""

import base64
from collections.abc import Mapping
from html import escape

from producer.client.fields import JobFields

#: Colours of the dashboard, readable on light and on dark notebooks.
_BAR = "accent-color:#2f6f4f;width:100%;height:0.9em"
_CELL = "width:96px;height:96px;object-fit:contain;border-radius:4px;background:#8882"


def job_card(job: JobFields, thumbnails: Mapping[int, bytes]) -> str:
    """Name, state, progress and the first pictures of a job."""
    counts = job.counts
    told = [f"{counts.completed} of {counts.total} done"]
    told += [f"{counts.failed} failed"] if counts.failed else []
    told += [f"{counts.cancelled} cancelled"] if counts.cancelled else []
    told += [f"about {_duration(job.seconds_left)} left"] if job.seconds_left and not job.has_ended else []
    state = "paused" if job.is_paused else job.state
    name = f"Job {job.id}" + (f" {escape(job.name)}" if job.name else "")
    errors = "".join(
        f'<div style="color:#b3261e">{count} &times; {escape(message)}</div>' for message, count in job.errors.items()
    )
    return (
        '<div style="max-width:48em;font-family:sans-serif">'
        f'<div><b><a href="{escape(job.url)}" target="_blank" rel="noopener">{name}</a></b> {escape(state)}, '
        f"{', '.join(told)}</div>"
        f"{bar(job.progress, 1, name)}{errors}"
        f'<div style="display:flex;flex-wrap:wrap;gap:4px;margin-top:4px">{_grid(thumbnails)}</div></div>'
    )


def bar(done: float, total: float, label: str) -> str:
    """A progress bar; ``label`` is HTML."""
    return f'<progress style="{_BAR}" value="{done:g}" max="{total or 1:g}" aria-label="{label}"></progress>'


def _grid(thumbnails: Mapping[int, bytes]) -> str:
    return "".join(
        f'<img style="{_CELL}" alt="image {index}" title="image {index}" '
        f'src="data:image/webp;base64,{base64.b64encode(data).decode()}">'
        for index, data in sorted(thumbnails.items())
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
