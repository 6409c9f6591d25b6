"""The command line: the one place where the parts of the farm are put together."""

import json
import os
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.table import Table

from farm import __version__
from farm.errors import ConfigurationError, FarmError
from farm.settings import Settings, get_settings
from farm.spec import MAX_BATCH, Pixels
from farm.states import Stage
from producer.commands import (
    audit,
    catalog,
    following,
    jobs,
    login,
    models,
    people,
    pictures,
    retention,
    submitting,
    tokens,
)
from producer.commands import farm as farm_commands
from producer.commands.terms import JsonOption, friendly_errors, messages, output

app = typer.Typer(
    name="farm",
    help="A render farm for Stable Diffusion XL.\n\n"
    "Start one on this machine with `farm up`, or go to one elsewhere with `farm login`; hand it prompts with "
    "`farm submit`, and fetch the pictures with `farm download` or `farm grid`. A cluster runs the same parts one by "
    "one: `farm producer`, `farm worker`, `farm dashboard`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SUBMIT = "Jobs (over HTTP, from any machine)"
PICTURES = "Pictures"
FARM = "The farm, and you"
OPERATOR = "The operator's side"
for panel, panel_commands in {
    SUBMIT: (
        submitting.submit,
        jobs.jobs,
        jobs.show,
        following.follow,
        jobs.pause,
        jobs.resume,
        jobs.cancel,
        jobs.retry,
        jobs.change,
        jobs.delete,
    ),
    PICTURES: (pictures.download, pictures.images, pictures.grid, pictures.archive, pictures.upload),
    FARM: (
        login.login,
        login.logout,
        farm_commands.whoami,
        people.link,
        farm_commands.pipelines,
        farm_commands.queues,
        farm_commands.workers,
        farm_commands.shares,
        farm_commands.words,
    ),
}.items():
    for command in panel_commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(tokens.tokens, name="token", rich_help_panel=FARM)
app.add_typer(people.users, name="user", rich_help_panel=OPERATOR)
app.add_typer(catalog.catalog, name="catalog", rich_help_panel=OPERATOR)
app.add_typer(models.models, name="models", rich_help_panel=OPERATOR)
app.add_typer(retention.retention, name="retention", rich_help_panel=OPERATOR)
app.command(rich_help_panel=OPERATOR)(audit.audit)

DevicesOption = Annotated[
    str,
    typer.Option(
        "--devices", "--device", help="auto (all CUDA devices, else the CPU), cpu, cpu,cpu or cuda:0,cuda:1 ..."
    ),
]
PipelineOption = Annotated[str | None, typer.Option(help="Entry of the catalog to load.")]


class StageChoice(StrEnum):
    """What a worker serves."""

    AUTO = "auto"
    BASE = "base"
    REFINER = "refiner"
    BOTH = "both"


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        sys.stdout.write(f"sdxl-farm {__version__}\n")
        raise typer.Exit


@app.command(rich_help_panel=OPERATOR)
def up(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the farm keeps everything.")] = None,
    host: Annotated[str | None, typer.Option(help="Address that the dashboard listens on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the dashboard; 0 takes a free one.  [default: 8000]")
    ] = None,
    devices: DevicesOption = "auto",
    pipeline: Annotated[
        str | None, typer.Option(help="Entry of the catalog.  [default: sdxl-1.0 on GPUs, demo on a CPU]")
    ] = None,
    stage: Annotated[
        StageChoice, typer.Option(help="What each device serves; auto splits them between base and refiner.")
    ] = StageChoice.BOTH,
) -> None:
    """Start all parts of a farm on this machine, in the foreground.

    Postgres and Valkey are started from wheels unless FARM_DATABASE_URL and FARM_BROKER_URL name others. Ctrl-C
    finishes the batches that are being rendered and stops everything; the next `farm up` goes on where it stopped.
    """
    with friendly_errors():
        from farm.up import run_up
        from worker.devices import parse

        given = {"data": data, "host": host, "port": port, "pipeline": pipeline}
        chosen = {name: value for name, value in given.items() if value is not None}
        parsed = parse(devices)
        settings = get_settings()
        if "pipeline" not in chosen and "pipeline" not in settings.model_fields_set:
            # Full SDXL on a CPU takes minutes a picture: nobody's first impression should be that.
            chosen["pipeline"] = "demo" if all(device.name == "cpu" for device in parsed) else settings.pipeline
        settings = Settings(**(settings.model_dump(exclude_unset=True) | chosen))
        names = ",".join(device.name for device in parsed)

        def on_ready(url: str, link: str, logs: Path) -> None:
            output.print(
                f"The farm is up: [bold]{url}[/bold]\n"
                f"  Log in, once, with this link: [bold]{link}[/bold] (another: farm link)\n"
                f"  pipeline {settings.pipeline} on {names}; logs in {logs}\n"
                f"  Submit: farm submit prompts.txt --output pictures/     Stop: Ctrl-C",
                highlight=False,
                soft_wrap=True,
            )

        _set_up_logging(settings)
        run_up(settings, names, on_ready, stage.value)


@app.command(rich_help_panel=OPERATOR)
def producer() -> None:
    """Run the producer service: it queues batches, and recovers what a crash left behind.

    Any number may run; one leads, the others stand by.
    """
    with friendly_errors():
        from farm.keeper import stop_on_signal
        from farm.parent import exit_with_keeper
        from farm.tracing import set_up_tracing
        from producer.service import run

        settings = get_settings()
        _set_up_logging(settings)
        exit_with_keeper()
        stop = threading.Event()
        set_up_tracing("producer")
        with stop_on_signal(stop):
            run(settings, stop)


@app.command(rich_help_panel=OPERATOR)
def worker(
    devices: DevicesOption = "auto",
    stage: Annotated[
        StageChoice,
        typer.Option(help="Which half of the rendering to serve; auto: the farm decides, as its work changes."),
    ] = StageChoice.AUTO,
    pipeline: Annotated[
        str | None, typer.Option(help="Entry of the catalog to load; auto: the one with the most waiting work.")
    ] = None,
    tags: Annotated[str | None, typer.Option(help="What jobs can require of it: fast, site=lab ...")] = None,
    hours: Annotated[str | None, typer.Option(help="When it takes work, by this machine's clock: 20:00-07:00.")] = None,
) -> None:
    """Run one worker process per device.

    SIGTERM or Ctrl-C lets each finish the batches it holds; a second one ends them at once.
    """
    with friendly_errors():
        from farm.catalog import Catalog
        from farm.keeper import stop_on_signal
        from farm.parent import exit_with_keeper
        from farm.tags import read_tags
        from worker.devices import parse
        from worker.hours import Hours
        from worker.supervisor import first_pipeline, supervise

        settings = get_settings()
        _set_up_logging(settings)
        exit_with_keeper()
        catalog = Catalog.load(settings.catalog, settings.models_directory)
        found = parse(devices)
        chooses = pipeline == "auto"
        entry = first_pipeline(catalog, settings, found) if chooses else catalog.get(pipeline or settings.pipeline)
        flexible = [*(["pipeline"] if chooses else []), *(["stages"] if stage is StageChoice.AUTO else [])]
        said = {"FARM_WORKER_TAGS": tags, "FARM_WORKER_HOURS": hours}
        os.environ.update({name: value for name, value in said.items() if value is not None})
        try:
            read_tags(tags or "")
        except ValueError as error:
            raise ConfigurationError(f"--tags: {error}") from None
        Hours.read(hours or "")
        keeper = supervise(found, _stages(stage), entry, flexible)
        with stop_on_signal(keeper):
            keeper.run()


def _stages(choice: StageChoice) -> list[Stage] | None:
    if choice is StageChoice.AUTO:
        return None
    return [*Stage] if choice is StageChoice.BOTH else [Stage(choice.value)]


@app.command(rich_help_panel=OPERATOR)
def tune(
    devices: DevicesOption = "auto",
    pipeline: PipelineOption = None,
    stage: Annotated[StageChoice, typer.Option(help="Which half of the rendering to measure.")] = StageChoice.BOTH,
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Repeatable.  [default: the pipeline's own]")
    ] = None,
    up_to: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Most images in a call that are tried.")] = MAX_BATCH,
    as_json: JsonOption = False,
) -> None:
    """Measure how many images in one call are fastest, on one device of each kind.

    The result is kept beside the models; workers follow it from their next start, and jobs that are submitted then get
    batches of that size. Run it while nothing else renders on the device.
    """
    with friendly_errors():
        from dataclasses import asdict

        from farm.catalog import Catalog
        from worker.devices import parse
        from worker.supervisor import served_stages
        from worker.tune import tune_devices

        settings = get_settings()
        _set_up_logging(settings)
        entry = Catalog.load(settings.catalog, settings.models_directory).get(pipeline or settings.pipeline)
        stages = served_stages(_stages(stage) or [*Stage], entry)
        sizes = [_size(text) for text in size or [f"{entry.defaults.width}x{entry.defaults.height}"]]
        with messages.status("measuring") as status:
            tuned = tune_devices(parse(devices), stages, entry, sizes, up_to, status.update)
        if as_json:
            sys.stdout.write(json.dumps({"tuned": [asdict(one) for one in tuned]}) + "\n")
            return
        for one in tuned:
            output.print(f"{one.device}, {one.stage}, {one.width}x{one.height}", style="bold", highlight=False)
            table = Table("images in a call", "seconds per image")
            for images, seconds in one.seconds_per_image.items():
                table.add_row(str(images), f"{seconds:.3f}", style="green" if images == one.best else None)
            if one.out_of_memory_at is not None:
                table.add_row(str(one.out_of_memory_at), "does not fit into memory")
            output.print(table)
        if entry.batch_size is not None:
            output.print(
                f"The catalog fixes batch_size = {entry.batch_size} for {entry.name}: leave it out there to have what "
                f"was measured followed.",
                highlight=False,
            )


@app.command(rich_help_panel=OPERATOR)
def dashboard() -> None:
    """Run the web dashboard and the HTTP API, behind a production WSGI server."""
    with friendly_errors():
        from dashboard.server import serve
        from farm.parent import exit_with_keeper
        from farm.tracing import set_up_tracing

        settings = get_settings()
        _set_up_logging(settings)
        exit_with_keeper()
        set_up_tracing("dashboard")
        serve(settings)


@app.command(rich_help_panel=OPERATOR)
def migrate() -> None:
    """Bring the database's tables up to this version, and make the store's bucket where it is missing.

    Safe to run again, and from several machines at once.
    """
    with friendly_errors():
        import migrations
        from farm.database import open_database
        from farm.storage import open_store

        settings = get_settings()
        engine = open_database(settings)
        migrations.upgrade(engine)
        engine.dispose()
        open_store(settings).prepare()


@app.command(rich_help_panel=OPERATOR)
def doctor(as_json: JsonOption = False) -> None:
    """Look for what is wrong with this machine and its farm, and say what to do about it.

    Settings, versions, GPUs, disks, catalog, broker, store, database, clocks, and the farm as a whole. Exits with 1 if
    something does not work.
    """
    with friendly_errors():
        from farm.doctor.examination import examine
        from farm.doctor.versions import installed_version
        from producer.commands.doctor import report

        revisions: list[str] = []
        # Clients know nothing of tables.
        if installed_version("alembic") is not None:
            import migrations

            revisions = migrations.revisions()
        report(examine(revisions), as_json=as_json)


@app.command(rich_help_panel=OPERATOR)
def tiny_checkpoint(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Gets base and refiner as DIR/base, DIR/refiner.")],
    as_json: JsonOption = False,
) -> None:
    """Write tiny base and refiner checkpoints of the real SDXL architecture, with random weights.

    A few megabytes in diffusers' own layout: what the tests render with.
    """
    with friendly_errors():
        from worker.tiny import write_tiny_checkpoint

        write_tiny_checkpoint(directory)
        if as_json:
            sys.stdout.write(
                json.dumps({"base": str(directory / "base"), "refiner": str(directory / "refiner")}) + "\n"
            )
        else:
            output.print(f"Wrote {directory}/base and {directory}/refiner", highlight=False)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (TypeAdapter(Pixels).validate_python(side) for side in text.split("x"))
    except ValueError:
        raise ConfigurationError(
            f"--size {text}: write width x height in pixels, multiples of 8 from 64 to 4096, as in 1024x1024"
        ) from None
    return width, height


def _set_up_logging(settings: Settings) -> None:
    from farm.logs import set_up_logging

    set_up_logging(settings)


def main() -> None:
    """Entry point of ``farm``."""
    try:
        app()
    except FarmError as error:  # a setting that is refused before any command runs
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
