"""The error of pictures as a peak signal-to-noise ratio."""

import statistics
from typing import Any

import numpy as np

Pictures = np.ndarray[Any, np.dtype[np.float32]]
"""(n, height, width, 3) in 0..1, or one of them."""

#: Equal pictures: float32 itself rounds as finely as this.
EQUAL_DECIBELS = 144.0


def errors(pictures: Pictures, reference: Pictures) -> dict[str, float]:
    """``median dB`` and ``worst dB`` of the pictures."""
    found = [decibels(*pair) for pair in zip(pictures, reference, strict=True)]
    return {"median dB": statistics.median(found), "worst dB": min(found)}


def decibels(picture: Pictures, reference: Pictures) -> float:
    """Ten times the logarithm of 1, the square of white, over the mean squared error."""
    squared = float(np.square(picture.astype(np.float64) - reference).mean())
    return EQUAL_DECIBELS if squared == 0 else min(EQUAL_DECIBELS, -10 * float(np.log10(squared)))
