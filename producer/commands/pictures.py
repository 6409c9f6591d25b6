"""Commands about pictures: what a job made, and what goes into one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from producer.client.job import PARALLEL
from producer.client.sync import Farm
from producer.commands.following import print_line
from producer.commands.terms import JobArgument, JsonOption, friendly_errors, output, plain, print_json, say


def images(
    job_id: JobArgument,
    state: Annotated[
        str | None, typer.Option(help="Only those that are pending, completed, failed or cancelled.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """List a job's images with what they were made from."""
    with friendly_errors(nothing="Nothing was listed."), Farm() as farm:
        found = farm.job(job_id).images(state)
        if as_json:
            for image in found:
                print_line(image.data)
            return
        table = Table("Image", "State", "Seed", "Prompt", "Why")
        for image in found:
            row = (str(image.index), image.state, str(image.seed), plain(image.prompt), plain(image.error or ""))
            table.add_row(*map(escape, row))
        output.print(table)


def download(
    job_id: JobArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")],
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Pictures that are fetched at once.")] = PARALLEL,
    as_json: JsonOption = False,
) -> None:
    """Download a job's finished pictures as 000017_seed59.png; those already in DIR are kept.

    A download that was cut off goes on where it stopped.
    """
    with friendly_errors(), Farm() as farm:
        files = farm.job(job_id).download(directory, parallel=parallel, progress=True)
        print_json({"files": [str(path) for path in files]}, only_if=as_json)
        if not as_json:
            say(f"{len(files)} pictures in {directory}")


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
            say(f"{sheet.info['images']} pictures in {file}")


def archive(
    job_id: JobArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The ZIP to write.")],
    as_json: JsonOption = False,
) -> None:
    """Save a job's finished pictures as one ZIP, with a manifest of all its images."""
    with friendly_errors(nothing="Nothing was saved."), Farm() as farm:
        farm.job(job_id).archive(file)
        print_json({"file": str(file), "bytes": file.stat().st_size}, only_if=as_json)
        if not as_json:
            say(f"{file}, {file.stat().st_size / 2**20:.1f} MiB")


def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures: png, jpeg, webp, tiff, bmp, ...")],
    as_json: JsonOption = False,
) -> None:
    """Store pictures that jobs will start from, and print the names under which a spec speaks of them.

    `farm submit` uploads by itself what its files and options name; this is for programs.
    """
    with friendly_errors(nothing="It was not stored."), Farm() as farm:
        found = {}
        for file in files:
            try:
                found[str(file)] = farm.upload(file)
            except OSError as error:
                raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE...") from None
            if not as_json:
                say(f"{found[str(file)]}  {file}")
        print_json({"inputs": found}, only_if=as_json)
