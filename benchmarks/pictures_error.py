"""How far pictures are from those that plain diffusers makes in float32, on the same device, of the same seeds.

The weights are random and so the pictures are like noise, much of it the noise that they began with: what is measured
is how rounding grows on its way through the model. That compares options with each other, and says nothing of what
anybody would see with a trained model. Pictures are decoded but not yet rounded to bytes.
"""

import numpy as np
import torch
from decibels import Pictures, errors
from parts import Result
from setting import WARM_UP, Setting, Work, prompts
from timing import DeviceClock
from ways import documented, loop_pipelines, rendered

from worker.pipelines import LoadedPipeline


def reference_part(work: Work) -> Result:
    """Keep the reference, and measure plain diffusers in float16 against it: no default may be worse than that."""
    # Or cuDNN would round what it convolves to 10 bits; products of matrices are exact by default.
    torch.backends.cudnn.allow_tf32 = False
    reference = plain(work, "float32")
    with work.reference.open("wb") as file:
        np.save(file, reference)
    return errors(plain(work, "float16"), reference)


def error_part(loaded: LoadedPipeline, work: Work) -> Result:
    """The error of the engine's pictures; empty without a reference."""
    if not work.reference.is_file():
        return {}
    reference: Pictures = np.load(work.reference)
    made = rendered(loaded, _texts(work.setting), work.setting, DeviceClock(work.setting), "png16")
    return errors(np.stack(made[: len(reference)]), reference)


def plain(work: Work, dtype: str) -> Pictures:
    """The pictures of plain diffusers, one by one."""
    base, refiner = loop_pipelines(work.checkpoint, work.setting, dtype)
    texts = _texts(work.setting)[: work.setting.compared]
    return np.concatenate(
        [
            documented(base, refiner, [text], work.setting, output_type="np", seed=seed)
            for seed, text in enumerate(texts)
        ]
    )


def _texts(setting: Setting) -> list[str]:
    """A whole batch, as the runs have it: kernels are chosen, and compiled, by its size."""
    return prompts(setting.batch_size, WARM_UP)
