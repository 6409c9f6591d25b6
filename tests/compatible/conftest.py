"""A farm that is asked by other services' clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Services, farm_settings
from running import RunningFarm, running_farm


@pytest.fixture(scope="module")
def farm(services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    directory = tmp_path_factory.mktemp("compatible")
    with (
        farm_settings(services, directory, models_directory) as settings,
        running_farm(settings, directory, ["--device", "cpu"]) as farm,
    ):
        yield farm
