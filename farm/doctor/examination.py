"""Goes through all checks in order, from what everything needs to the farm as a whole."""

import os
from collections.abc import Iterator, Sequence

from farm.doctor.catalog import check_catalog
from farm.doctor.dashboard import check_dashboard
from farm.doctor.disk import check_disk
from farm.doctor.findings import Finding
from farm.doctor.gpu import check_gpus
from farm.doctor.services import locate_services
from farm.doctor.settings import check_names, read_settings
from farm.doctor.versions import check_versions, installed_version


def examine(revisions: Sequence[str]) -> Iterator[Finding]:
    """All findings, as they are found. ``revisions`` are those of this version's migrations, the newest first.

    What needs something that is broken is passed by.
    """
    yield from check_names(os.environ)
    settings, refused = read_settings()
    yield from refused
    yield from check_versions()
    yield from check_gpus()
    if settings is None:
        # Everything else depends on them.
        return
    yield from check_disk(settings)
    yield from check_catalog(settings)
    settings, located = locate_services(settings)
    yield from located
    if installed_version("sqlalchemy") is not None:
        # With the libraries that clients do without.
        from farm.doctor.server import check_server

        yield from check_server(settings, revisions)
    yield from check_dashboard()
