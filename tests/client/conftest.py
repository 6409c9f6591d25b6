"""A running farm for all tests of the client, with one worker."""

import pytest
from running import RunningFarm

from producer import Farm


@pytest.fixture(scope="session")
def running(shared_farm: RunningFarm) -> RunningFarm:
    return shared_farm


@pytest.fixture
def farm(running: RunningFarm) -> Farm:
    return running.client
