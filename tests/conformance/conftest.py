from pathlib import Path

import pytest

from farm.catalog import Catalog
from farm.states import Stage
from worker.pipelines import LoadedPipeline, load


@pytest.fixture(scope="session")
def pipeline(models_directory: Path) -> LoadedPipeline:
    """The tiny pipeline with both stages. Tests leave it as they found it."""
    return load(Catalog.load().get("tiny"), models_directory, "cpu", frozenset(Stage))
