"""Keys of objects. What a worker writes carries its batch and attempt: a zombie's late upload replaces nothing.

Two attempts may render pictures whose last bits differ, on another device or in another company; only the one that is
committed is named by a row, with its hash, and what others left is doomed (``farm.doomed``).
"""

#: What the keys of each kind begin with.
IMAGES, THUMBNAILS, INPUTS, LATENTS = "images/", "thumbnails/", "inputs/", "latents/"


def image_key(job_id: int, index: int, batch_id: int, attempt: int, ending: str = "png") -> str:
    """Where an attempt leaves an image's picture."""
    return f"{IMAGES}{job_id}/{index:06d}-{batch_id}-{attempt}.{ending}"


def thumbnail_key(job_id: int, index: int, batch_id: int, attempt: int) -> str:
    """Where an attempt leaves an image's thumbnail."""
    return f"{THUMBNAILS}{job_id}/{index:06d}-{batch_id}-{attempt}.webp"


def input_key(sha256: str) -> str:
    """Where a picture that goes in lies."""
    return f"{INPUTS}{sha256[:2]}/{sha256}"


def latents_key(job_id: int, batch_id: int, attempt: int) -> str:
    """Where the base stage leaves a batch's latents for the refiner."""
    return f"{LATENTS}{job_id}/{batch_id}-{attempt}.safetensors"


def compiled_key(kind: str) -> str:
    """Where what torch compiled for one kind of worker lies."""
    return f"compiled/{kind}"


def download_name(index: int, seed: int, ending: str = "png") -> str:
    """File name of a downloaded picture: ``000017_seed59.png``."""
    return f"{index:06d}_seed{seed}.{ending}"
