"""The scheduler of one pipeline call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers

from farm.spec import ImageParameters


@contextmanager
def scheduled(pipe: Any, image: ImageParameters) -> Iterator[None]:
    """Give the pipeline the scheduler that the image asks for, made anew from the checkpoint's own, for one call.

    Made as diffusers' documentation does: ``Class.from_config(pipe.scheduler.config, **options)``. A new one each time:
    schedulers keep state from call to call.
    """
    own = pipe.scheduler
    entry = image.scheduler_entry
    kind = type(own) if image.scheduler is None else getattr(diffusers, entry.class_name)
    options = {**(entry.fixed if image.scheduler is not None else {}), **image.scheduler_options.given()}
    if kind is diffusers.DPMSolverSDEScheduler:
        # Its Brownian tree has a seed of its own, and takes one at random where none is given.
        options["noise_sampler_seed"] = image.seed
    pipe.scheduler = kind.from_config(own.config, **options)
    try:
        yield
    finally:
        pipe.scheduler = own
