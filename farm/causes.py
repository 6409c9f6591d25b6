"""Why images fail, in words for the person who has to do something about it: errors by their cause, with a remedy."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for failures."""

    title: str
    remedy: str


_UNKNOWN = Cause(
    "The model's code raised an error",
    "Retry the failed pictures. If they fail again, submit one of them with other parameters: the message says which.",
)
#: Patterns of messages as workers and recovery write them, the first that is found counts.
_CAUSES = (
    (
        r"OutOfMemoryError|out of memory|not enough memory",
        Cause(
            "The device ran out of memory",
            "Retry with a smaller size, or let an operator set vae_tiling or offload for this pipeline in the catalog.",
        ),
    ),
    (
        r"BrokenPictureError|NaN or infinity",
        Cause(
            "The model gave NaN where a picture should be",
            "Use a VAE made for float16 or the dtype bfloat16 (catalog), or lower guidance and LoRA weights.",
        ),
    ),
    (
        r"stopped answering",
        Cause(
            "The worker died while it rendered",
            "Retry the failed pictures. If one worker is behind all of it, drain that worker and read its log.",
        ),
    ),
    (
        r"sha256:|input|No such file.*inputs|UnidentifiedImage",
        Cause(
            "A picture that goes in could not be read",
            "Upload the picture anew, and submit these rows again.",
        ),
    ),
    (
        r"LoRA|lora|IP-Adapter|ControlNet|textual inversion|Adapter",
        Cause(
            "An adapter does not fit",
            "Choose another adapter for these rows, or let an operator mend its entry in the catalog.",
        ),
    ),
    (
        r"Parsing|blend|compel|prompt",
        Cause(
            "A prompt could not be read",
            "Mend the prompt's weights and brackets, and submit these rows again.",
        ),
    ),
    (
        r"CUDA error|device-side assert|illegal memory access|Xid",
        Cause(
            "The GPU failed",
            "Drain the worker and restart it; if it happens again, have the GPU's memory errors (ECC, Xid) looked at.",
        ),
    ),
    (
        r"no such file|not found|does not exist|OSError|ConnectionError|HTTPError",
        Cause(
            "A file or a server could not be reached",
            "Retry the failed pictures when it is back.",
        ),
    ),
)


def cause_of(message: str) -> Cause:
    """The cause that a failed image's message speaks of."""
    return next((cause for pattern, cause in _CAUSES if re.search(pattern, message)), _UNKNOWN)
