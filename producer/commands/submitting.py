"""``farm submit``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client.farm import Estimate
from producer.client.sync import Farm, Job
from producer.commands.following import print_end, see_through
from producer.commands.terms import (
    DEADLINE_HELP,
    Exit,
    JsonOption,
    complete_pipelines,
    duration,
    friendly_errors,
    moment_of,
    plain,
    print_json,
    priority_of,
    say,
    warn,
)

#: Parameters that are text, whatever it looks like.
_TEXTS = frozenset({"prompt_2", "negative_prompt", "negative_prompt_2", "name", "size"})


def submit(
    file: Annotated[
        Path | None, typer.Argument(metavar="[PROMPTS]", help="File of prompts: .txt, .csv, .tsv, .jsonl or .xlsx.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be given several times.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.  [default: the file's name]")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Entry of the farm's catalog.", autocompletion=complete_pipelines)
    ] = None,
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
    priority: Annotated[
        str | None,
        typer.Option(help="idle, low, normal, high, interactive, or 0 to 100; higher goes first.  [default: normal]"),
    ] = None,
    after: Annotated[int | None, typer.Option(metavar="JOB", help="Begin when this job has ended.")] = None,
    requires: Annotated[
        str | None, typer.Option(metavar="TAGS", help='What its workers must have: "vram>=24, site=lab".')
    ] = None,
    max_devices: Annotated[int | None, typer.Option(help="At most so many devices render it at once.")] = None,
    deadline: Annotated[str | None, typer.Option(help=DEADLINE_HELP)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would come to: images, batches, time. Submit nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until every picture is there.")] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="The same, with a line for each picture as it ends."),
    ] = False,
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
            "priority": priority_of(priority),
            "after": after,
            "requires": requires,
            "max_devices": max_devices,
            "deadline": moment_of(deadline),
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
            fields[field.strip()] = _typed(field.strip(), text)
        for assignment in column or []:
            title, equals, text = assignment.rpartition("=")
            if not equals or file is None:
                raise typer.BadParameter(f"{assignment!r} is not TITLE=NAME of a file", param_hint="--column")
            fields.setdefault("columns", {})[title] = text.strip()
        if no_refiner:
            fields["refiner_split"] = None
        with Farm() as farm:
            if dry_run:
                _print_estimate(_estimate(farm, file, prompt or [], fields), as_json=as_json)
                return
            job = _send(farm, file, prompt or [], fields)
            if not as_json:
                _print_receipt(job)
            if not (wait or follow or directory is not None):
                print_json(job.receipt, only_if=as_json)
                return
            see_through(job, follow=follow and not as_json)
            files = job.download(directory, progress=True) if directory is not None else []
            print_json({**job.receipt, "job": job.data, "files": [str(path) for path in files]}, only_if=as_json)
            if not as_json:
                print_end(job, directory)
            if job.state != "completed" and not job.test_run_ended:
                raise typer.Exit(Exit.FAILED)


def _typed(field: str, text: str) -> Any:
    """What a value says: numbers, true, false, null, lists and objects as JSON has them; all else is text."""
    if field in _TEXTS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str) else value


def _send(farm: Farm, file: Path | None, prompts: list[str], fields: dict[str, Any]) -> Job:
    if file is None:
        return farm.submit(prompts, **fields)
    with _readable(file):
        return farm.submit(file=file, **fields)


def _estimate(farm: Farm, file: Path | None, prompts: list[str], fields: dict[str, Any]) -> Estimate:
    if file is None:
        return farm.estimate(prompts, **fields)
    with _readable(file):
        return farm.estimate(file=file, **fields)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="PROMPTS") from None


def _print_estimate(found: Estimate, *, as_json: bool) -> None:
    print_json(asdict(found), only_if=as_json)
    if not as_json:
        say(f"{found.image_count} images in {found.batch_count} batches; nothing was submitted")
        say(f"device time {duration(found.device_seconds)}, done in {duration(found.seconds_until_done)}")


def _print_receipt(job: Job) -> None:
    receipt = job.receipt
    if receipt["ignored_columns"]:
        warn(f"ignored columns: {', '.join(map(plain, receipt['ignored_columns']))}")
    say(
        f"Job {job.id}: {receipt['image_count']} images in {receipt['batch_count']} batches, "
        f"seed {receipt['seed']}  {job.url}"
    )
