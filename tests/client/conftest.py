"""A running farm for all tests of the client, with one worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Services, farm_settings
from running import RunningFarm, running_farm

from producer import Farm


@pytest.fixture(scope="package")
def running(
    services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path
) -> Iterator[RunningFarm]:
    directory = tmp_path_factory.mktemp("farm")
    with (
        farm_settings(services, directory, models_directory) as settings,
        running_farm(settings, directory, ["--device", "cpu"]) as farm,
    ):
        yield farm


@pytest.fixture
def farm(running: RunningFarm) -> Farm:
    return running.client
