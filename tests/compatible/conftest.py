"""A farm that is asked by other services' clients."""

import pytest
from running import RunningFarm


@pytest.fixture(scope="session")
def farm(shared_farm: RunningFarm) -> RunningFarm:
    return shared_farm
