"""Command line: each stage goes on where it was stopped."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from tools.train_demo import diffusion, latents, vae, words
from tools.train_demo.models import count, make_base, make_refiner, make_text, make_vae, read
from tools.train_demo.pack import pack
from tools.train_demo.scores import score

SEED = 20261127
STAGES = ("words", "vae", "latents", "decoder", "base", "refiner", "pack", "score")


def main() -> None:
    """Run the stages that were asked for, and what they build on."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_demo", description=__doc__)
    parser.add_argument(
        "stages", nargs="+", choices=[*STAGES, "all"], metavar="STAGE", help=", ".join(STAGES) + "; or all"
    )
    parser.add_argument("--work", type=Path, default=Path("demo-training"), help="what is made on the way")
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="DIR",
        help="packed pipelines whose parts are trained further, rather than from scratch",
    )
    parser.add_argument("--vae-steps", type=int, default=4_000)
    parser.add_argument("--scenes", type=int, default=8_000)
    parser.add_argument("--words-steps", type=int, default=1_200)
    parser.add_argument("--decoder-steps", type=int, default=3_000)
    parser.add_argument("--base-steps", type=int, default=20_000)
    parser.add_argument("--refiner-steps", type=int, default=4_000)
    parser.add_argument(
        "--packed", type=Path, metavar="DIR", help="what is scored  [default: demo in the work directory]"
    )
    parser.add_argument("--prompts", type=int, default=200, help="judged ones")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    chosen = STAGES if "all" in options.stages else options.stages
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    text, coder, base, refiner = make_text(), make_vae(), make_base(), make_refiner()
    if options.begin_with is not None:
        read(options.begin_with, text, coder, base, refiner)
    print(f"{count(text.encoder, text.encoder_2, coder, base, refiner):,} parameters", file=sys.stderr)
    began = time.monotonic()
    steps = {stage: getattr(options, f"{stage}_steps") for stage in ("vae", "words", "decoder", "base", "refiner")}
    # Stages build on those before: what they made is read again, and trained to its end where it was not. The VAE and
    # its latents know nothing of words, and the UNets nothing of the decoder: those can be made at the same time.
    # Scores are of what was packed, whoever trained it.
    last = max((STAGES.index(stage) for stage in chosen if stage != "score"), default=-1)
    if "words" in chosen or last >= STAGES.index("base"):
        words.train(text, work / "words.safetensors", steps["words"], SEED)
    if last >= STAGES.index("vae"):
        vae.train(coder, work / "vae.safetensors", steps["vae"], SEED)
    if last >= STAGES.index("latents"):
        coder.requires_grad_(False)
        data = latents.make(coder, work / "latents.safetensors", options.scenes, SEED)
        coder.register_to_config(scaling_factor=data.scaling_factor)
    if last >= STAGES.index("base"):
        diffusion.train_base(base, text, data, work / "base.safetensors", steps["base"], SEED)
    if last >= STAGES.index("refiner"):
        diffusion.train_refiner(refiner, text, data, work / "refiner.safetensors", steps["refiner"], SEED)
    if "decoder" in chosen or last >= STAGES.index("pack"):
        vae.train_decoder(coder, work / "decoder.safetensors", steps["decoder"], SEED)
    if last >= STAGES.index("pack"):
        size = pack(work / "demo", text, coder, base, refiner)
        print(f"{size / 1e6:.1f} MB in {work / 'demo'}", file=sys.stderr)
    if "score" in chosen:
        print(json.dumps(asdict(score(options.packed or work / "demo", options.prompts)), indent=1))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
