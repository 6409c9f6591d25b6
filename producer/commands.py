"""The user's commands: submit, jobs, show, cancel, download. Clients of the HTTP API and nothing else."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from farm.errors import FarmError, InvalidSubmissionError
from producer.client.sync import Farm, Job

#: Exit status for input that was refused, as of a wrong command line.
EXIT_REFUSED = 2

output = Console()
messages = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
JobArgument = Annotated[int, typer.Argument(metavar="JOB", help="Number of the job, as `farm jobs` lists it.")]


def submit(
    file: Annotated[
        Path | None, typer.Argument(metavar="[PROMPTS]", help="File of prompts: .txt, .csv, .tsv, .jsonl or .xlsx.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be given several times.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.  [default: the file's name]")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Entry of the farm's catalog.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the pictures should not show.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, base and refiner together.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    refiner_split: Annotated[
        float | None, typer.Option(help="Share of the denoising that the base does before the refiner takes over.")
    ] = None,
    no_refiner: Annotated[bool, typer.Option("--no-refiner", help="Let the base finish the pictures alone.")] = False,
    size: Annotated[str | None, typer.Option(help="Width x height in pixels, divisible by 8: 1024x1024.")] = None,
    image: Annotated[
        str | None, typer.Option(metavar="FILE", help="Picture to start from: image to image, or inpainting.")
    ] = None,
    mask_image: Annotated[
        str | None, typer.Option(metavar="FILE", help="What to repaint of --image: white is painted anew.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How much of --image is painted anew, up to 1.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="euler, dpmpp_2m_karras, ddim, ...")] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:WEIGHT]", help="LoRA of the catalog; may be given several times.")
    ] = None,
    output_format: Annotated[str | None, typer.Option(help="png, webp, jpeg, png16 or latents.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter, by its name in diffusers."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="AXES", help='Values in turn: "guidance_scale: 3..9 step 2; steps: 20, 40".'),
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="all or random: what {red|blue} __animal__ in prompts stands for.")
    ] = None,
    template_samples: Annotated[int | None, typer.Option(help="With --templates random: prompts per template.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="TITLE=NAME", help="Which parameter a column of the file is.")
    ] = None,
    first: Annotated[int | None, typer.Option(help="Take only so many images, and never the others.")] = None,
    test_run: Annotated[
        int | None, typer.Option(help="Render so many images; `farm resume` lets the others follow.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Image k of the job gets this seed + k.  [default: random]")] = None,
    images_per_prompt: Annotated[int | None, typer.Option(help="Pictures per prompt, each with its own seed.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="At most so many images in one pipeline call.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 100; higher goes first.  [default: 50]")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until every picture is there.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Download the pictures to DIR (implies --wait).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job: a file of prompts, or prompts given with --prompt.

    Columns of csv and tsv files, and fields of jsonl lines, may set any parameter for their row: prompt,
    negative_prompt, seed, steps, guidance_scale, size, refiner_split, image, mask_image, strength, scheduler, ...
    Pictures are named by their path beside the file. All parameters: docs/capabilities.md.

    Examples:

        farm submit prompts.txt --steps 40 --output pictures/

        farm submit sheet.csv --no-refiner --size 1024x768 --seed 1

        farm submit --prompt "a red fox in the snow" --images-per-prompt 8 --wait

        farm submit --prompt "a castle" --image house.png --strength 0.6 --set clip_skip=1
    """
    with friendly_errors(file.name if file else None):
        if (file is None) == (not prompt):
            raise typer.BadParameter("give either a file of prompts or --prompt", param_hint="PROMPTS")
        if no_refiner and refiner_split is not None:
            raise typer.BadParameter("--no-refiner and --refiner-split exclude each other", param_hint="--no-refiner")
        given = {
            "name": name or (file.name if file else None),
            "pipeline": pipeline,
            "negative_prompt": negative_prompt,
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "refiner_split": refiner_split,
            "size": size,
            "seed": seed,
            "images_per_prompt": images_per_prompt,
            "batch_size": batch_size,
            "priority": priority,
            "image": image,
            "mask_image": mask_image,
            "strength": strength,
            "scheduler": scheduler,
            "loras": lora,
            "output_format": output_format,
            "sweep": sweep,
            "templates": templates,
            "template_samples": template_samples,
            "first": first,
            "test_run": test_run,
        }
        fields: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
        for assignment in parameter or []:
            field, equals, text = assignment.partition("=")
            if not equals:
                raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE", param_hint="--set")
            fields[field.strip()] = text
        for assignment in column or []:
            title, equals, text = assignment.rpartition("=")
            if not equals or file is None:
                raise typer.BadParameter(f"{assignment!r} is not TITLE=NAME of a file", param_hint="--column")
            fields.setdefault("columns", {})[title] = text.strip()
        if no_refiner:
            fields["refiner_split"] = None
        with Farm() as farm:
            job = _send(farm, file, prompt or [], fields)
            if not as_json:
                _print_receipt(job)
            if not (wait or directory is not None):
                print_json(job.receipt, only_if=as_json)
                return
            job.wait(progress=True)
            files = job.download(directory, progress=True) if directory is not None else []
            print_json({**job.receipt, "job": job.data, "files": [str(path) for path in files]}, only_if=as_json)
            if not as_json:
                _print_end(job, directory)
            if job.state != "completed" and not job.test_run_ended:
                raise typer.Exit(1)


def words(
    name: Annotated[str | None, typer.Argument(help="Name of a list: prompts write it as __name__.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Text, one word or phrase a line.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the lists of words for prompt templates, or store or remove one.

    Examples:

        farm words

        farm words animal animals.txt

        farm submit --prompt "a {red|blue} __animal__" --templates all
    """
    with friendly_errors(), Farm() as farm:
        if delete and name is not None:
            farm.delete_words(name)
        elif name is not None and file is not None:
            farm.save_words(name, file.read_text(encoding="utf-8-sig"))
        lists = {key: found for key, found in farm.words().items() if name in (None, key)}
        if not as_json:
            for key, found in lists.items():
                shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
                output.print(f"{key}: {len(found)} ({shown})", markup=False, highlight=False)
        print_json({"word_lists": lists}, only_if=as_json)


def jobs(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, counted from the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs."""
    with friendly_errors(), Farm() as farm:
        found = farm.jobs(limit)
        if as_json:
            print_json([job.data for job in found])
            return
        table = Table("Job", "Name", "State", "Images", "Done", "Failed", "Submitted")
        for job in found:
            table.add_row(
                str(job.id),
                _plain(job.name),
                job.state,
                str(job.counts.total),
                str(job.counts.completed),
                str(job.counts.failed),
                job.data["created_at"],
            )
        output.print(table)


def show(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job: its state, its counts, and why images failed."""
    with friendly_errors(), Farm() as farm:
        job = farm.job(job_id)
        if as_json:
            print_json(job.data)
            return
        counts = job.counts
        output.print(f"Job {job.id}  {_plain(job.name)}", highlight=False, style="bold")
        output.print(f"{job.state}, pipeline {job.pipeline}, submitted {job.data['created_at']}", highlight=False)
        output.print(
            f"{counts.completed} of {counts.total} images done, {counts.failed} failed, "
            f"{counts.cancelled} cancelled, {counts.pending} to come",
            highlight=False,
        )
        for message, count in job.errors.items():
            output.print(f"{count} x {_plain(message)}", highlight=False, style="red")
        output.print(job.url, highlight=False)


def cancel(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job. Pictures that are finished are kept."""
    with friendly_errors(), Farm() as farm:
        job = farm.job(job_id).cancel()
        print_json(job.data, only_if=as_json)
        if not as_json:
            output.print(f"Job {job_id} is cancelled; {job.counts.completed} pictures are kept.", highlight=False)


def resume(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Go on with a paused job, or let the rest of a test run follow."""
    with friendly_errors(), Farm() as farm:
        job = farm.job(job_id).resume()
        print_json(job.data, only_if=as_json)
        if not as_json:
            output.print(f"Job {job_id} goes on; {job.counts.pending} pictures are to come.", highlight=False)


def download(
    job_id: JobArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")],
    as_json: JsonOption = False,
) -> None:
    """Download a job's finished pictures as 000017_seed59.png; those already in DIR are kept."""
    with friendly_errors(), Farm() as farm:
        files = farm.job(job_id).download(directory, progress=True)
        print_json({"files": [str(path) for path in files]}, only_if=as_json)
        if not as_json:
            output.print(f"{len(files)} pictures in {directory}", highlight=False)


def grid(
    job_id: JobArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The picture to write: .png, .jpg or .webp.")],
    by: Annotated[
        str | None, typer.Option(metavar="X[,Y]", help="Columns (and rows) by the values of these parameters.")
    ] = None,
    images: Annotated[str | None, typer.Option(metavar="0,5,7-9", help="Only these images.  [default: all]")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Columns of a grid in reading order.")] = None,
    cell: Annotated[int, typer.Option(min=16, max=2048, help="Edge of a cell in pixels.")] = 256,
    labels: Annotated[bool, typer.Option(help="Write captions and values beside the pictures.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Make one picture of a job's finished pictures.

    Examples:

        farm grid 7 sheet.png

        farm grid 7 sweep.png --by guidance_scale,num_inference_steps
    """
    with friendly_errors(), Farm() as farm:
        sheet = farm.job(job_id).grid(by, images=images, columns=columns, cell=cell, labels=labels, progress=True)
        try:
            sheet.save(file)
        except (ValueError, OSError) as error:
            raise typer.BadParameter(f"{file} cannot be written: {error}", param_hint="FILE") from error
        print_json({"file": str(file), "images": sheet.info["images"]}, only_if=as_json)
        if not as_json:
            output.print(f"{sheet.info['images']} pictures in {file}", highlight=False)


def print_json(document: object, *, only_if: bool = True) -> None:
    """One JSON document on standard output."""
    if only_if:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


@contextmanager
def friendly_errors(filename: str | None = None, nothing: str = "Nothing was submitted.") -> Iterator[None]:
    """Print the farm's errors for a person, and exit: 2 for refused input, 1 for anything else.

    ``nothing`` says what did not happen when input was refused.
    """
    try:
        yield
    except InvalidSubmissionError as error:
        for problem in error.problems:
            where = f"{filename}: " if filename and problem.line is not None else ""
            messages.print(f"error: {where}{problem}", style="red", highlight=False, markup=False, soft_wrap=True)
        if error.total > len(error.problems):
            messages.print(f"... and {error.total - len(error.problems)} more", highlight=False)
        messages.print(nothing, highlight=False)
        raise typer.Exit(EXIT_REFUSED) from None
    except FarmError as error:
        messages.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _send(farm: Farm, file: Path | None, prompts: list[str], fields: dict[str, Any]) -> Job:
    if file is None:
        return farm.submit(prompts, **fields)
    try:
        return farm.submit(file=file, **fields)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="PROMPTS") from None


def _print_receipt(job: Job) -> None:
    receipt = job.receipt
    if receipt["ignored_columns"]:
        messages.print(f"ignored columns: {', '.join(map(_plain, receipt['ignored_columns']))}", highlight=False)
    output.print(
        f"Job {job.id}: {receipt['image_count']} images in {receipt['batch_count']} batches, "
        f"seed {receipt['seed']}  {job.url}",
        highlight=False,
        soft_wrap=True,
    )


def _print_end(job: Job, directory: Path | None) -> None:
    counts = job.counts
    kept = f", saved in {directory}" if directory is not None else ""
    if job.test_run_ended:
        rest = counts.total - (job.test_images or 0)
        output.print(f"test run: {counts.completed} pictures{kept}", highlight=False)
        output.print(f"{rest} more wait; let them follow with: farm resume {job.id}", highlight=False)
    else:
        output.print(f"{job.state}: {counts.completed} pictures{kept}", highlight=False)
    for message, count in job.errors.items():
        messages.print(f"{count} x {_plain(message)}", style="red", highlight=False)


def _plain(text: str) -> str:
    """Text of strangers for a terminal: no control characters, no markup."""
    return "".join(character if character.isprintable() else " " for character in text).replace("[", r"\[")
