"""Tables that jobs are made from: a pandas or polars data frame, or a list of dicts. Neither library is needed here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from farm.errors import FarmError
from producer.client.connection import Json

Row = Mapping[str, Any]
#: What a line of the table says of its image, beside the columns that it had.
IMAGE_COLUMNS = ("image", "seed", "state", "file")


class TableError(FarmError):
    """A table that no job can be made from, or a job that was made from none."""


class Mapped:
    """A table, the parameters that a function makes of its rows, and which image belongs to which row."""

    def __init__(self, function: Callable[[Json], str | Mapping[str, Any]], table: Any) -> None:
        self._function = function
        self._table = table
        self._rows = _rows_of(table)
        self._images_per_row = 1

    def parameters(self) -> Iterator[Row]:
        """What is submitted: a row of parameters for each row of the table."""
        for number, row in enumerate(self._rows):
            try:
                made = self._function(dict(row))
            except Exception as error:
                error.add_note(f"farm.map was at row {number} of the table: {row!r:.200}")
                raise
            if not isinstance(made, str | Mapping):
                raise TableError(
                    f"Row {number} of the table became {made!r:.80}; the function must return a prompt, or a dict of "
                    "parameters with one."
                )
            yield {"prompt": made} if isinstance(made, str) else made

    def submitted(self, image_count: int) -> None:
        """The job has so many images, as many for each row."""
        self._images_per_row = image_count // len(self._rows)

    def row_of(self, index: int) -> Row:
        """The row that an image was made from."""
        return self._rows[index // self._images_per_row]

    def joined(self, images: Sequence[Json]) -> Any:
        """The table with a line per image, of the kind that it was."""
        places = [image["index"] // self._images_per_row for image in images]
        values = {
            "image": [image["index"] for image in images],
            "seed": [image["seed"] for image in images],
            "state": [image["state"] for image in images],
            "file": [image["download_name"] for image in images],
        }
        if hasattr(self._table, "iloc"):
            return self._table.iloc[places].assign(**values)
        if hasattr(self._table, "hstack"):
            return self._table[places].drop(IMAGE_COLUMNS, strict=False).hstack(type(self._table)(values))
        lines = zip(*values.values(), strict=True)
        return [
            {**self._rows[place], **dict(zip(values, line, strict=True))}
            for place, line in zip(places, lines, strict=True)
        ]


def _rows_of(table: Any) -> Sequence[Row]:
    if hasattr(table, "iloc"):
        rows = table.to_dict("records")
    elif hasattr(table, "to_dicts"):
        rows = table.to_dicts()
    else:
        rows = list(table)
    if not all(isinstance(row, Mapping) for row in rows):
        raise TableError("The table must be a pandas or polars data frame, or a list of dicts.")
    if not rows:
        raise TableError("The table has no rows; nothing was submitted.")
    return [{str(name): value for name, value in row.items()} for row in rows]
