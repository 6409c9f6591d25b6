"""``farm audit``: whether anything was lost."""

from dataclasses import asdict
from typing import Annotated

import typer

from producer.commands.terms import Exit, JsonOption, friendly_errors, messages, print_json, say


def audit(
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Also read every picture, and compare it with its hash.")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend", help="Mark missing and damaged pictures as removed; `farm retry --removed` renders them."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare rows, objects and hashes, and list every contradiction.

    For operators, on a machine with FARM_DATABASE_URL and FARM_STORE_URL, or beside a farm that `farm up` runs. It may
    run at any time, changes nothing without --mend, and ends with 1 if anything was found.
    """
    with friendly_errors():
        from farm.database import open_database
        from farm.doctor.services import locate_services
        from farm.settings import get_settings
        from farm.storage import open_store
        from producer.audit import Tally, mark_broken
        from producer.audit import audit as contradictions

        settings, _ = locate_services(get_settings())
        store, engine = open_store(settings), open_database(settings)
        tally, found, marked = Tally(), [], 0
        try:
            with messages.status("comparing rows") as status:
                for one in contradictions(engine, store, tally, hashes=hashes):
                    found.append(one)
                    status.update(f"{tally.jobs} jobs, {tally.images} pictures, {len(found)} contradictions")
                    if not as_json:
                        say(f"{one.rule}: {'' if one.job_id is None else f'job {one.job_id}, '}{one.what}")
                        say(f"  {one.remedy}")
            if mend:
                marked = mark_broken(engine, found)
        finally:
            engine.dispose()
    told = [asdict(one) for one in found]
    print_json({**asdict(tally), "marked": marked, "contradictions": told}, only_if=as_json)
    if not as_json:
        looked_at = f"{tally.jobs} jobs, {tally.images} pictures and {tally.objects} objects"
        say(f"{looked_at}: {len(found)} contradictions." if found else f"{looked_at}: nothing contradicts itself.")
        if marked:
            say(f"{marked} pictures are marked as removed; render them again with: farm retry --removed JOB")
    if found:
        raise typer.Exit(Exit.FAILED)
