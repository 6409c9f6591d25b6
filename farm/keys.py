"""Keys of objects: deterministic, so that rendering twice writes the same object twice.

Latents carry the attempt: a zombie's late upload can never replace what a living attempt wrote.
"""

#: What the keys of each kind begin with.
IMAGES, THUMBNAILS, INPUTS, LATENTS = "images/", "thumbnails/", "inputs/", "latents/"


def image_key(job_id: int, index: int, ending: str = "png") -> str:
    """Where an image's picture lies."""
    return f"{IMAGES}{job_id}/{index:06d}.{ending}"


def thumbnail_key(job_id: int, index: int) -> str:
    """Where an image's thumbnail lies."""
    return f"{THUMBNAILS}{job_id}/{index:06d}.webp"


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
