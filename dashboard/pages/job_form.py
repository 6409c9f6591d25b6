"""Reads the form for a new job: its fields, its rows, its pictures, and which parameter each column is."""

import json
from dataclasses import dataclass, field
from typing import Any

from flask import request

from dashboard.api.submission import read_columns
from dashboard.context import context
from dashboard.pages import parameters
from farm.combinations import CombinationError
from farm.errors import InvalidSubmissionError, Problem
from farm.spec import INPUT_FIELDS
from farm.storage import sha256
from producer.inputs import accept_input
from producer.intake import FORMATS
from producer.presets import FORM_ALONE
from producer.preview import Column, as_text, columns_of, guess_format
from producer.sweeps import read_sweep

FORM_FIELDS = (
    "name",
    "priority",
    "batch_size",
    "after",
    "requires",
    "max_devices",
    "deadline",
    "pipeline",
    "negative_prompt",
    "size",
    "num_inference_steps",
    "guidance_scale",
    "refiner_split",
    "seed",
    "images_per_prompt",
    "first",
    "test_run",
    "sweep",
    "templates",
    "template_samples",
    "inputs",
    *parameters.names(),
)
#: What a preset keeps: how pictures are made, and neither of what nor what the job is called.
PRESET_FIELDS = (
    *(name for name in FORM_FIELDS if name not in ("name", "after", "deadline", "first", "test_run", "inputs")),
    *FORM_ALONE,
)
#: Formats that text can be pasted in.
TEXT_FORMATS = tuple(name for name in FORMATS if name != "xlsx")
#: A file up to this size comes back with the page as text, since no page can choose a file again.
MAX_TEXT_CHARACTERS = 1_000_000
#: Parameters that each uploaded picture can be, with every prompt.
EACH_PICTURE = ("image", "ip_adapter_image", "control_image")


@dataclass(slots=True)
class JobForm:
    """What the form says."""

    given: dict[str, str]
    """Its fields as text, to be shown again."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The fields of the job."""
    filename: str = ""
    data: bytes = b""
    columns: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """What could not even be read."""

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a prompt nor a file."""
        return not self.filename

    def check(self) -> None:
        """Raise InvalidSubmissionError for what could not be read."""
        if self.problems:
            raise InvalidSubmissionError(self.problems)


def read_job_form() -> JobForm:
    """The form of this request. Pictures that came with it are stored, under the hash of their bytes."""
    form = JobForm(request.form.to_dict())
    said = {name: request.form.get(name, "").strip() for name in FORM_FIELDS}
    form.fields = {name: value for name, value in said.items() if value}
    if request.form.get("refiner") == "no":
        form.fields["refiner_split"] = "none"
    _read_rows(form)
    if request.form.get("column"):
        form.columns = _mapped(columns_of(form.filename, form.data))
    _store_pictures(form)
    each = request.form.get("each_picture", "")
    if each in EACH_PICTURE and form.fields.get("inputs"):
        _sweep_pictures(form, each)
    return form


def header_digest(columns: list[Column]) -> str:
    """What a choice of columns belongs to: another file's titles have another."""
    return sha256(json.dumps([column.title for column in columns]).encode())[:16]


def _mapped(columns: list[Column]) -> dict[str, str]:
    """What somebody said each column is, if they said it of these columns."""
    if request.form.get("columns_for") != header_digest(columns):
        return {}
    found: dict[str, str] = {}
    for text in request.form.getlist("column"):
        found |= read_columns(text)
    return found


def keep_as_text(form: JobForm) -> None:
    """Put the file that was chosen into the text field, where the page can show it again."""
    if form.given.get("prompts", "").strip() or not form.data:
        return
    try:
        text, ending = as_text(form.filename, form.data)
    except InvalidSubmissionError:
        return
    if len(text) <= MAX_TEXT_CHARACTERS and ending in TEXT_FORMATS:
        form.given |= {"prompts": text, "format": ending}


def _read_rows(form: JobForm) -> None:
    """What was pasted, or the file."""
    file = request.files.get("file")
    pasted = request.form.get("prompts", "")
    if file is not None and file.filename:
        form.filename, form.data = file.filename, file.read()
        if pasted.strip():
            form.problems.append(Problem("file", "cannot be sent together with pasted prompts; clear one of them"))
    elif pasted.strip():
        ending = request.form.get("format", "")
        form.filename = f"pasted.{ending if ending in TEXT_FORMATS else guess_format(pasted)}"
        form.data = pasted.encode("utf-8", "surrogatepass")


def _store_pictures(form: JobForm) -> None:
    """The pictures that came with the form, stored, under the names of their fields."""
    for name in INPUT_FIELDS:
        files = [file for file in request.files.getlist(f"{name}_file") if file.filename]
        refs = [ref for file in files if (ref := _store(form, name, file.read())) is not None]
        if refs:
            form.fields[name] = refs if name == "control_image" else refs[0]
            form.given[name] = ", ".join(refs) if name == "control_image" else refs[0]
    pictures = [file for file in request.files.getlist("pictures_file") if file.filename]
    if pictures:
        inputs = _uploaded(form)
        for file in pictures:
            ref = _store(form, "inputs", file.read())
            if ref is not None:
                inputs[file.filename or ""] = ref
        form.given["inputs"] = json.dumps(inputs)
        form.fields["inputs"] = inputs


def _store(form: JobForm, name: str, data: bytes) -> str | None:
    farm = context()
    try:
        return accept_input(farm.engine, farm.store, data).ref
    except InvalidSubmissionError as error:
        form.problems += [Problem(name, problem.message) for problem in error.problems]
        return None


def _uploaded(form: JobForm) -> dict[str, str]:
    """Names of uploaded pictures and what they stand for; nothing if the field holds something else."""
    try:
        inputs = json.loads(form.given.get("inputs") or "{}")
    except (ValueError, RecursionError):
        return {}
    return inputs if isinstance(inputs, dict) else {}


def _sweep_pictures(form: JobForm, name: str) -> None:
    """Each uploaded picture with every prompt: an axis of the sweep."""
    try:
        sweep = read_sweep(form.fields["sweep"]) if "sweep" in form.fields else {}
    except CombinationError as error:
        form.problems.append(Problem(error.field, str(error)))
        return
    form.fields["sweep"] = {**sweep, name: list(_uploaded(form))}
