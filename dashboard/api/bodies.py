"""Reads JSON bodies into models; what does not fit is refused with the field's name and the reason."""

import json
from typing import TypeVar

from flask import request
from pydantic import BaseModel, ConfigDict, ValidationError

from dashboard.api.submission import read_json_object
from farm.errors import InvalidSubmissionError, Problem


class Body(BaseModel):
    """A body with exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(model: type[AnyBody]) -> AnyBody:
    """The JSON body; an empty one says nothing. Raises InvalidSubmissionError."""
    body = read_json_object() if request.content_length else {}
    try:
        # As JSON: only there a text may be a time.
        return model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        problems = [Problem(".".join(map(str, one["loc"])), one["msg"].lower()) for one in error.errors()]
        raise InvalidSubmissionError(problems) from None
