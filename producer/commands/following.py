"""Seeing a job through: a bar, or a line for each picture as it ends."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from producer.client.sync import Farm, Image, Job
from producer.commands.terms import Exit, JobArgument, JsonOption, friendly_errors, plain, print_json, say, warn


def follow(
    job_id: JobArgument,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="A progress bar in place of a line for each picture.")] = False,
) -> None:
    """Follow a job until it has ended: a line for each picture. Ctrl-C stops looking; the job goes on.

    With --json, one JSON document for each picture, a line each, and the job's last.
    """
    with friendly_errors(), Farm() as farm:
        job = farm.job(job_id)
        see_through(job, follow=not quiet, as_json=as_json)
        if not as_json:
            print_end(job)
        elif quiet:
            print_json(job.data)
        if job.state != "completed" and not job.test_run_ended:
            raise typer.Exit(Exit.FAILED)


def see_through(job: Job, *, follow: bool, as_json: bool = False) -> None:
    """Wait for the end of a job, or of its test run."""
    try:
        if not follow:
            job.wait(progress=True)
            return
        for image in job.images(as_completed=True):
            if as_json:
                print_line(image.data)
            else:
                _print_image(image)
        job.refresh()
        if as_json:
            print_line(job.data)
    except KeyboardInterrupt:
        warn(f"Job {job.id} goes on. Look again: farm follow {job.id}    End it: farm cancel {job.id}")
        raise typer.Exit(Exit.INTERRUPTED) from None


def print_end(job: Job, directory: Path | None = None) -> None:
    """What came of a job."""
    counts = job.counts
    kept = f", saved in {directory}" if directory is not None else ""
    if job.test_run_ended:
        say(f"test run: {counts.completed} pictures{kept}")
        say(f"{counts.total - (job.test_images or 0)} more wait; let them follow with: farm resume {job.id}")
    else:
        say(f"{job.state}: {counts.completed} pictures{kept}")
    for message, count in job.errors.items():
        warn(f"{count} x {plain(message)}", "red")


def print_line(document: object) -> None:
    """A JSON document on a line of its own."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _print_image(image: Image) -> None:
    shown = f"{image.index:>6}  {image.state}  seed {image.seed}  {plain(image.prompt)[:60]}"
    say(f"{shown}  {plain(image.error)}" if image.error else shown)
