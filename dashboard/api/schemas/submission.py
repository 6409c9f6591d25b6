"""What a submission says, as JSON: the fields of ``farm.spec`` under all their names, and the prompts or rows."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from dashboard.api.operations import Content, Document, Media, Query
from farm.spec import INPUT_FIELDS, MAX_PROMPT_CHARACTERS, ImageParameters, JobSpec
from producer.expand import SPEC_FIELDS
from producer.intake import ALIASES, KNOWN, NULLABLE

_JSON_OBJECT = {"contentMediaType": "application/json"}
_STRICT = ConfigDict(extra="forbid")
Size = Annotated[str, Field(pattern=r"^\s*\d+\s*[xX]\s*\d+\s*$", description="width x height: 1024x768")]
_PICTURE = Annotated[str, Field(max_length=200, description="sha256:..., or a name that `inputs` maps to one")]


def _field(name: str) -> Any:
    """A field's type, none of them required, from the model that checks its values."""
    name = ALIASES.get(name, name)
    if name == "size":
        return Size
    if name == "sweep":
        return dict[str, Any] | str
    if name == "control_image":
        return tuple[_PICTURE, ...] | _PICTURE
    if name in INPUT_FIELDS:
        return _PICTURE | None
    info = JobSpec.model_fields.get(name) or ImageParameters.model_fields[name]
    kind = _as_json(Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation)
    # As in files, where nothing else can say null.
    return Union[kind, Literal["none"]] if name in NULLABLE else kind  # noqa: UP007 - of a type that is computed


def _as_json(kind: Any) -> Any:
    """A type as JSON writes it: where a validator turns other things into it, those other things."""
    if get_origin(kind) is Annotated:
        _, *parts = get_args(kind)
        for part in parts:
            if isinstance(part, BeforeValidator):
                return part.json_schema_input_type
        return kind
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(_as_json(one) for one in get_args(kind))]  # noqa: UP007 - of a list that is computed
    return kind


def _fields(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: (_field(name), Field(default=None)) for name in names}


_PROMPT = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
RowBody = cast(
    "type[BaseModel]",
    create_model("Row", __config__=_STRICT, **{**_fields(KNOWN), "prompt": (_PROMPT, Field())}),
)
RowBody.__doc__ = "What a row sets for itself; `prompt` is needed."
JobFields = cast("type[BaseModel]", create_model("JobFields", __config__=_STRICT, **_fields(SPEC_FIELDS)))
JobFields.__doc__ = "What is said once for the whole job."


class SubmissionBody(JobFields):  # type: ignore[valid-type, misc]
    """A job: `prompts` or `rows`, and what is said once for all of them."""

    prompts: list[_PROMPT] = Field(default=[], min_length=1, description="One image, or several, for each.")
    rows: list[RowBody] = Field(  # type: ignore[valid-type]
        default=[], min_length=1, description="Prompts that set parameters for themselves."
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": ["prompts"]}, {"required": ["rows"]}],
            "examples": [{"prompts": ["a red fox in the snow"], "images_per_prompt": 4, "seed": 42}],
        },
    )


class StreamQuery(Query):
    """What is said once for the job of a stream."""

    spec: Annotated[
        str, Field(description="with JSON lines: the job's fields as a JSON object", json_schema_extra=_JSON_OBJECT)
    ] = "{}"


#: Media types of JSON lines.
STREAMS = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
#: Lists of a submission's entries, and what is in them.
ENTRIES = {"prompts": "strings", "rows": 'objects such as {"prompt": "a fox"}'}
#: What a submission may be sent as.
SUBMISSION: tuple[Content, ...] = (
    SubmissionBody,
    Media(
        "multipart/form-data",
        {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {"type": "string", "format": "binary", "description": "txt, csv, tsv, jsonl or xlsx"},
                "name": {"type": "string"},
            },
            "description": "The job's other fields beside the file, as text.",
        },
    ),
    *(
        Media(kind, {"type": "string", "description": "a row a line; also with Content-Encoding: gzip"})
        for kind in STREAMS
    ),
)
KEY = {
    "Idempotency-Key": {
        "description": "A value of your own, such as a UUID: repeated with the same body, it is the same job.",
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^[!-~]+$",
    }
}


class Receipt(Document):
    """What was accepted."""

    id: int
    url: str
    image_count: int
    batch_count: int
    seed: int
    ignored_columns: list[str]
    test_images: int | None


class EstimateDocument(Document):
    """What a submission would come to; seconds are null where nothing was measured, or nobody is there to render."""

    image_count: int
    batch_count: int
    device_seconds: float | None
    seconds_until_done: float | None
    workers: int
