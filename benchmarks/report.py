"""A result as tables, on a terminal and in Markdown, and where it is kept."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aims import aims, images_per_second, of_matrix_rate, ratios
from parts import Result
from rich import box, table
from rich.console import Console

#: What every option's error is compared with.
FLOAT16 = "plain diffusers, float16"
#: By so much medians of a few pictures differ without a reason.
TOLERATED_DECIBELS = 1.0


@dataclass(frozen=True)
class Table:
    """Cells under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As a section with a table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        return f"## {self.title}\n\n" + "".join(f"| {line} |\n" for line in cells)

    def shown(self) -> table.Table:
        """For a terminal."""
        made = table.Table(*self.columns, title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for row in self.rows:
            made.add_row(*row)
        return made


def summary(result: Result) -> Result:
    """The result with what follows from it."""
    return {**result, "ratios": ratios(result), "of matrix rate": of_matrix_rate(result), "aims": aims(result)}


def show(result: Result) -> None:
    """Print its tables."""
    console = Console(width=140, markup=False, highlight=False)
    console.print(heading(result))
    for one in tables(result):
        console.print(one.shown())
    for note in notes(result):
        console.print(note)


def heading(result: Result) -> str:
    """What was measured, on what and when."""
    setting, machine = result["setting"], result["machine"]
    said = ", ".join(f"{name} {value}" for name, value in setting.items() if name != "name")
    return f"{setting['name']} on {machine['gpu']}, {result['date']} ({said})"


def tables(result: Result) -> Iterator[Table]:
    """All that were measured."""
    yield Table("Aims for one H200 at 1024x1024", ("aim", "figure", "at least", ""), [*_aims(result)])
    columns = ("", "images/s", "s/image", "of matrix rate", "busy", "kernels", "warm-up s", "peak GiB", "")
    yield Table("Ways", columns, [*_ways(result)])
    if "arrivals" in result:
        yield Table("Interactive requests at random", ("", "figure"), [*_arrivals(result["arrivals"])])
    if "options" in result:
        columns = ("", "images/s", "of plain", "load s", "warm-up s", "peak GiB", "median dB", "worst dB", "")
        yield Table("Options of the catalog", columns, [*_options(result)])


def _aims(result: Result) -> Iterator[tuple[str, ...]]:
    for aim in aims(result):
        yield aim["aim"], _cell(aim["figure"]), _cell(aim["at least"]), aim["verdict"]


def _ways(result: Result) -> Iterator[tuple[str, ...]]:
    rates, shares = images_per_second(result), of_matrix_rate(result)
    for part in ("loop", "engine", "farm"):
        found = result.get(part, {})
        if "failed" in found:
            yield part, *[""] * 7, found["failed"]
        farm = {"farm": {**found, "kernels share": found.get("utilisation")}} if part == "farm" and found else {}
        for name, way in found.get("ways", farm).items():
            if name not in rates:
                yield name, *[""] * 7, way.get("failed", "")
                continue
            figures = (rates[name], 1 / rates[name], shares.get(name), way["busy share"], way["kernels share"])
            last = (way["warm-up seconds"], way.get("peak GiB"))
            yield name, *map(_cell, figures), *map(_cell, last), way.get("failed later", "")


def _arrivals(found: Result) -> Iterator[tuple[str, str]]:
    for name, figure in found.items():
        yield name, figure if name == "failed" else _cell(figure)


def _options(result: Result) -> Iterator[tuple[str, ...]]:
    reference = result.get(FLOAT16, {})
    yield FLOAT16, *[""] * 5, *_decibels(reference), reference.get("failed", "")
    plain, float16 = result["options"].get("plain", {}).get("images/s"), reference.get("median dB")
    for name, option in result["options"].items():
        if "images/s" not in option:
            yield name, *[""] * 7, option["failed"]
            continue
        rate = option["images/s"]
        took = (option[figure] for figure in ("seconds to load", "warm-up seconds", "peak GiB"))
        figures = (rate, rate / plain if plain else None, *took)
        remark = option.get("failed later", "") or _remark(option.get("median dB"), float16)
        yield name, *map(_cell, figures), *_decibels(option), remark


def _remark(decibels: float | None, float16: float | None) -> str:
    worse = decibels is not None and float16 is not None and decibels < float16 - TOLERATED_DECIBELS
    return "less exact than plain float16" if worse else ""


def _decibels(found: Result) -> tuple[str, str]:
    median, worst = (found.get(name) for name in ("median dB", "worst dB"))
    return tuple("" if one is None else f"{one:.1f}" for one in (median, worst))  # type: ignore[return-value]


def notes(result: Result) -> Iterator[str]:
    """What the tables do not say."""
    for part in ("loop", "engine"):
        if "seconds to load" in result.get(part, {}):
            yield f"{part}: loaded in {result[part]['seconds to load']:.1f} s"
    farm = result.get("farm", {})
    if "images/s" in farm:
        yield (
            f"farm: ready after {farm['seconds to start']:.1f} s, first picture after "
            f"{farm['seconds to first picture']:.1f} s"
        )
    for name, ratio in ratios(result).items():
        if ratio is not None:
            yield f"{name}: {ratio:.2f}"
    rate, work = (result.get("engine", {}).get(name) for name in ("matrix rate, TFLOP/s", "TFLOP per image"))
    if rate is not None:
        yield f"matrix rate: {rate:.0f} TFLOP/s; a picture takes {work:.0f} TFLOP"
    yield (
        "busy: share of the time given to calls, by CUDA events (on a CPU by the wall clock), of the farm by its "
        "batches' device seconds"
    )
    yield "kernels: share of the time in which a kernel ran, by NVML; of the farm the worker's own report"
    if "options" in result:
        yield (
            "dB: peak signal-to-noise ratio of decoded pictures against plain diffusers in float32; the weights are "
            "random and the pictures like noise, so it measures rounding and nothing that anybody would see"
        )


class Kept:
    """Files of a result, written anew as it grows: what has been measured is never lost."""

    def __init__(self, directory: Path, result: Result) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        gpu = re.sub("[^a-z0-9]+", "-", result["machine"]["gpu"].lower()).strip("-")
        name = f"{gpu}-{result['setting']['name']}-{result['date']}"
        # Nor is what another run of this day has measured.
        number = 1
        while (directory / f"{name}.json").exists():
            number += 1
            name = f"{name.removesuffix(f'_{number - 1}')}_{number}"
        self.path = directory / f"{name}.json"

    def write(self, result: Result) -> None:
        """The JSON document, and beside it the tables in Markdown."""
        self.path.write_text(json.dumps(summary(result), indent=1) + "\n", encoding="utf-8")
        self.path.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


def markdown(result: Result) -> str:
    """Its tables, and how it was made."""
    made = {**result["machine"], "command": result["command"]}
    about = "\n".join(f"- {name}: {value}" for name, value in made.items())
    sections = "\n".join(one.markdown() for one in tables(result))
    said = "\n".join(f"- {note}" for note in notes(result))
    return f"# {heading(result)}\n\n{about}\n\n{sections}\n{said}\n"


def _cell(figure: float | None) -> str:
    """A figure with three digits or more; nothing for None."""
    if figure is None:
        return ""
    return f"{figure:.3g}" if figure < 100 else f"{figure:.0f}"
