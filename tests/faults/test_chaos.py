"""A short run of chaos; ``make chaos`` does a long one."""

from pathlib import Path

import pytest
from chaos import Course, run


@pytest.mark.timeout(900)
def test_a_farm_in_chaos_loses_nothing(models_directory: Path) -> None:
    result = run(Course(images=150, seconds=40, every=1.4, seed=20261127), models_directory)
    assert sum(result.faults.values()) >= 8, result.faults
    assert result.is_well, result
