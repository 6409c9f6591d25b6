"""Commands about jobs: list, show, and what one does to them."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from farm.errors import ConflictError, NotFoundError
from producer.client.sync import Farm, Job
from producer.commands.terms import (
    DEADLINE_HELP,
    Exit,
    JobArgument,
    JobsArgument,
    JsonOption,
    duration,
    friendly_errors,
    moment,
    moment_of,
    output,
    plain,
    print_json,
    priority_of,
    read_days,
    say,
    warn,
)

NOTHING = "Nothing was changed."


def jobs(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, counted from the newest.")] = 20,
    state: Annotated[
        str | None, typer.Option(help="Only those that are queued, running, completed, failed or cancelled.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs."""
    with friendly_errors(nothing="Nothing was listed."), Farm() as farm:
        found = farm.jobs(limit, state)
        if as_json:
            print_json([job.data for job in found])
            return
        table = Table("Job", "Name", "State", "Images", "Done", "Failed", "Submitted")
        for job in found:
            counts = job.counts
            row = (job.id, escape(plain(job.name)), _state(job), counts.total, counts.completed, counts.failed)
            table.add_row(*map(str, row), moment(job.data["created_at"]))
        output.print(table)


def show(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job: its state, its counts, and why images failed."""
    with friendly_errors(), Farm() as farm:
        job = farm.job(job_id)
        if as_json:
            print_json(job.data)
            return
        counts = job.counts
        output.print(f"Job {job.id}  {escape(plain(job.name))}", highlight=False, style="bold")
        said = f"{_state(job)}, pipeline {job.pipeline}, priority {job.priority}, by {plain(job.owner)}, "
        say(said + f"submitted {moment(job.data['created_at'])}{_kept(job)}")
        say(
            f"{counts.completed} of {counts.total} images done, {counts.failed} failed, "
            f"{counts.cancelled} cancelled, {counts.pending} to come"
        )
        if removed := job.data["images"]["removed"]:
            say(f"the pictures of {removed} images were removed")
        if job.seconds_left is not None:
            say(f"about {duration(job.seconds_left)} left")
        if job.deadline is not None:
            say(_deadline(job))
        if job.data["after"] is not None and job.state == "queued":
            say(f"begins when job {job.data['after']} has ended")
        for message, count in job.errors.items():
            output.print(f"{count} x {escape(plain(message))}", highlight=False, style="red")
        say(job.url)


def _deadline(job: Job) -> str:
    said = f"deadline {moment(job.data['deadline'])}"
    if job.seconds_late is None:
        return said
    return f"{said}: about {duration(abs(job.seconds_late))} {'late' if job.seconds_late > 0 else 'to spare'}"


def cancel(job_ids: JobsArgument, as_json: JsonOption = False) -> None:
    """Cancel jobs. Pictures that are finished are kept."""
    _each(
        job_ids,
        Job.cancel,
        lambda job: f"Job {job.id} is cancelled; {job.counts.completed} pictures are kept.",
        as_json=as_json,
    )


def pause(job_ids: JobsArgument, as_json: JsonOption = False) -> None:
    """Let no further batch of jobs begin; what is being rendered is finished."""
    _each(
        job_ids,
        Job.pause,
        lambda job: f"Job {job.id} pauses; {job.counts.pending} pictures are to come.",
        as_json=as_json,
    )


def resume(job_ids: JobsArgument, as_json: JsonOption = False) -> None:
    """Go on with paused jobs, or let the rest of a test run follow."""
    _each(
        job_ids,
        Job.resume,
        lambda job: f"Job {job.id} goes on; {job.counts.pending} pictures are to come.",
        as_json=as_json,
    )


def retry(
    job_ids: JobsArgument,
    removed: Annotated[
        bool, typer.Option("--removed", help="Those whose pictures were removed, in place of those that failed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Render the failed images of jobs again."""
    _each(
        job_ids,
        lambda job: job.retry(removed=removed),
        lambda job: f"Job {job.id}: {job.data['retried']} images are rendered again.",
        as_json=as_json,
    )


def change(
    job_ids: JobsArgument,
    priority: Annotated[
        str | None, typer.Option(help="idle, low, normal, high, interactive, or 0 to 100; higher goes first.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    max_devices: Annotated[
        int | None, typer.Option(min=0, help="At most so many devices at once; 0: as many as there are.")
    ] = None,
    deadline: Annotated[str | None, typer.Option(help=DEADLINE_HELP)] = None,
    keep_days: Annotated[
        str | None,
        typer.Option(metavar="DAYS", help="Keep its pictures so many days after its end; none: as your policy says."),
    ] = None,
    keep_starred: Annotated[
        bool | None, typer.Option(help="Whether starred pictures stay in spite of that.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change jobs: their priority, name, devices, deadline, and how long their pictures are kept."""
    changes: dict[str, Any] = {
        "priority": priority_of(priority),
        "name": name,
        "max_devices": max_devices,
        "deadline": moment_of(deadline),
        "keep_days": read_days(keep_days),
        "keep_starred": keep_starred,
    }
    if all(value is None for value in changes.values()):
        raise typer.BadParameter("give --priority, --name, --max-devices, --deadline, --keep-days or --keep-starred")
    _each(
        job_ids,
        lambda job: job.change(**changes),
        lambda job: f"Job {job.id}: {plain(job.name)}, priority {job.priority}{_kept(job)}.",
        as_json=as_json,
    )


def delete(
    job_ids: JobsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete jobs that have ended, with all their pictures. There is no way back."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("pictures are gone for good; confirm with --yes", param_hint="JOB...")
        typer.confirm(f"Delete {len(job_ids)} job(s) with all their pictures for good?", abort=True)

    def remove(job: Job) -> Job:
        job.delete()
        return job

    _each(
        job_ids,
        remove,
        lambda job: f"Job {job.id} is deleted.",
        as_json=as_json,
        document=lambda job: {"id": job.id, "deleted": True},
    )


def _kept(job: Job) -> str:
    days = job.data["keep_days"]
    return "" if days is None else f", kept for {days} {'day' if days == 1 else 'days'}"


def _state(job: Job) -> str:
    return f"{job.state} (paused)" if job.is_paused else job.state


def _each(
    job_ids: list[int],
    act: Callable[[Job], Job],
    said: Callable[[Job], str],
    *,
    as_json: bool,
    document: Callable[[Job], Any] = lambda job: job.data,
) -> None:
    """Do something to each job, and say what became of it; one that refuses does not keep the others from it."""
    documents, refused = [], False
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        for job_id in job_ids:
            try:
                job = act(farm.job(job_id))
            except (NotFoundError, ConflictError) as error:
                if len(job_ids) == 1:
                    raise
                refused = True
                warn(f"error: {error}", "red")
                continue
            documents.append(document(job))
            if not as_json:
                say(said(job))
        print_json(documents[0] if len(job_ids) == 1 else documents, only_if=as_json)
    if refused:
        raise typer.Exit(Exit.FAILED)
