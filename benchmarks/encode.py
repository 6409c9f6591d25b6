"""What a finished picture costs a core: to bytes, thumbnail and hash, against Pillow's PNG.

Pictures of 1024x1024 with the statistics of photographs (amplitudes that fall with the frequency, a sensor's noise on
top), and a flat one with sharp edges. Each way gives the same pixels. Timed is the processor time of one thread, median
of the runs; the ways take turns, so that what disturbs one disturbs all.

    .venv/bin/python benchmarks/encode.py
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track
from rich.table import Table

from farm.spec import ImageParameters
from farm.storage import sha256
from worker.encode import encode, encode_thumbnail
from worker.pictures import finish

AIM_MILLISECONDS = 35
PARAMETERS = ImageParameters(
    pipeline="sdxl-1.0",
    prompt="a red fox in the snow, 85 mm, shallow depth of field",
    seed=1,
    width=1024,
    height=1024,
    num_inference_steps=40,
    guidance_scale=5.0,
)
PROVENANCE = {"job": "1", "index": "0"}
NOISE = (0.0, 1.0, 2.5)
#: Exponent of the amplitude spectrum; 1 is that of natural pictures, more is smoother as SDXL's are.
FALL = 1.3

Way = Callable[[Image.Image], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = {f"photograph, noise {noise}": photograph(options.size, noise) for noise in NOISE}
    pictures["flat shapes"] = flat(options.size)
    ways: dict[str, Way] = {
        "Pillow, level 6": lambda picture: by_pillow(picture, 6),
        "Pillow, level 1": lambda picture: by_pillow(picture, 1),
        "farm": lambda picture: encode(picture, PARAMETERS, PROVENANCE),
    }
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, picture in track([*pictures.items()], "pictures", console=Console(stderr=True)):
        results[name] = measure(ways, picture, options.runs)
    report(results, as_json=options.json)


def photograph(size: int, noise: float) -> Image.Image:
    draw = np.random.default_rng(0)
    down, across = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    channels = np.fft.irfft2(np.fft.rfft2(draw.standard_normal((3, size, size))) / frequency**FALL)
    # Channels of photographs are much alike.
    mixed = np.tensordot([[0.7, 0.6, 0.4], [0.7, 0.1, -0.3], [0.6, -0.5, 0.3]], channels / channels.std(), 1)
    values = mixed * 50 + 128 + draw.standard_normal(mixed.shape) * noise
    return Image.fromarray(np.ascontiguousarray(values.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)))


def flat(size: int) -> Image.Image:
    picture = Image.new("RGB", (size, size), "navy")
    draw = ImageDraw.Draw(picture)
    for number, colour in enumerate(("gold", "crimson", "white", "teal")):
        edge = size * (number + 1) // 6
        draw.ellipse((edge, edge // 2, edge * 2, edge * 3 // 2), fill=colour)
    return picture


def by_pillow(picture: Image.Image, level: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def measure(ways: dict[str, Way], picture: Image.Image, runs: int) -> dict[str, dict[str, float]]:
    decoded = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
    data = {name: way(picture) for name, way in ways.items()}
    for name, encoded in data.items():
        if Image.open(io.BytesIO(encoded)).tobytes() != picture.tobytes():
            raise SystemExit(f"{name} gives other pixels.")
    others: dict[str, Callable[[], object]] = {
        "rounding": lambda: finish(decoded, "png"),
        "thumbnail": lambda: encode_thumbnail(picture),
        "hash": lambda: sha256(data["farm"]),
    }
    work = {**{name: lambda way=way: way(picture) for name, way in ways.items()}, **others}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, do in work.items():
            begun = time.thread_time()
            do()
            seconds[name].append(time.thread_time() - begun)
    milliseconds = {name: statistics.median(values) * 1000 for name, values in seconds.items()}
    milliseconds["all told"] = milliseconds["farm"] + sum(milliseconds[name] for name in others)
    return {"milliseconds": milliseconds, "mebibytes": {name: len(one) / 2**20 for name, one in data.items()}}


def report(results: dict[str, dict[str, dict[str, float]]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results))
        return
    columns = ("Pillow, level 6", "Pillow, level 1", "farm")
    parts = ("rounding", "thumbnail", "hash", "all told")
    table = Table("milliseconds (MiB)", *columns, *parts, title="One picture, one core")
    for name, result in results.items():
        milliseconds, sizes = result["milliseconds"], result["mebibytes"]
        encoded = [f"{milliseconds[way]:.1f} ({sizes[way]:.2f})" for way in columns]
        table.add_row(name, *encoded, *(f"{milliseconds[part]:.1f}" for part in parts))
    Console(width=140).print(table)
    slowest = max(result["milliseconds"]["all told"] for result in results.values())
    ratio = statistics.median(
        result["milliseconds"]["Pillow, level 6"] / result["milliseconds"]["farm"] for result in results.values()
    )
    print(f"aim: at most {AIM_MILLISECONDS} ms all told; slowest {slowest:.1f} ms")
    print(f"Pillow's default level takes {ratio:.1f} times as long as the farm (median)")


if __name__ == "__main__":
    main()
