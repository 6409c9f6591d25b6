"""The catalog: whether it can be read, and whether what it names on this machine is there."""

from collections.abc import Iterator

from farm.catalog import Catalog
from farm.checkpoints.holdings import look
from farm.checkpoints.needs import all_entries, kind_of, own_needs
from farm.doctor.findings import Finding, error, ok, warning
from farm.errors import FarmError
from farm.settings import Settings

CHECK = "catalog"


def check_catalog(settings: Settings) -> Iterator[Finding]:
    """Folders and files of this machine must be complete; what comes from the model hub can still be fetched.

    An error is only what FARM_PIPELINE lacks: other machines may hold the rest.
    """
    remedy = "Run: farm catalog check FILE"
    try:
        catalog = Catalog.load(settings.catalog, settings.models_directory)
    except FarmError as refused:
        yield error(CHECK, str(refused), remedy.replace("FILE", str(settings.catalog)))
        return
    entries = list(all_entries(catalog))
    if settings.pipeline not in {entry.name for entry in catalog}:
        names = ", ".join(sorted(entry.name for entry in catalog))
        yield error(
            CHECK,
            f"FARM_PIPELINE is {settings.pipeline}, which the catalog does not hold",
            f"Name one of these: {names}.",
        )
    wrong = False
    for entry in entries:
        for need in own_needs(entry, settings.models_directory):
            if need.path is None or (holding := look(need)).is_usable:
                continue
            wrong = True
            make = error if entry.name == settings.pipeline else warning
            yield make(
                CHECK,
                f"{kind_of(entry)} {entry.name}: its {need.role} {need.where} cannot be used here: {holding.missing}",
                "Copy it there, complete, or correct its path in the catalog; paths that begin with ./ start in "
                f"{settings.models_directory} (FARM_MODELS).",
            )
    if not wrong:
        source = settings.catalog or "built in"
        yield ok(CHECK, f"{len(entries)} entries ({source}); all that is to be on this machine is here")
