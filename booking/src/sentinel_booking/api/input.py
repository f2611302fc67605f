"""Reads request bodies and queries into Pydantic models. What they mean is the views' job."""

from __future__ import annotations

from typing import Any

from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from pydantic import BaseModel, ValidationError

from ..errors import BookingError, FieldProblem, InvalidInput


class NotJson(BookingError):
    """The body cannot be read as JSON at all."""

    code = "not-json"
    title = "The body is not JSON"


class WrongMediaType(BookingError):
    """The body is said to be something else than JSON."""

    status = 415
    code = "wrong-media-type"
    title = "The body must be application/json"


class StrictInput(PydanticAdapter):
    """APIFlask's adapter, but strict.

    APIFlask reads any body as JSON whatever its type, and validates what json.loads made of
    it, where Pydantic's strict mode would refuse every time. Validating the text itself
    allows strict mode: a number is no time and "4" is no number.
    """

    def validate_input(
        self,
        request: Request,
        location: str,
        **kwargs: Any,  # noqa: ARG002  the base class names it
    ) -> BaseModel:
        """Return the model. Raises NotJson, WrongMediaType or InvalidInput."""
        model: type[BaseModel] = self.model_class
        try:
            if location == "json":
                if not request.is_json:
                    raise WrongMediaType("Send the body with Content-Type: application/json.")
                return model.model_validate_json(request.get_data())
            if location == "query":
                return model.model_validate(_single_values(request))
            if location == "headers":
                return model.model_validate(_known_headers(request, model))
        except ValidationError as error:
            raise _refusal(error) from error
        raise NotImplementedError(f"input from {location} is not used here")


def _single_values(request: Request) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, given in request.args.lists():
        if len(given) > 1:
            raise InvalidInput.field(name, "given more than once")
        values[name] = given[0]
    return values


def _known_headers(request: Request, model: type[BaseModel]) -> dict[str, str]:
    # A request carries many headers that are none of the view's business.
    names = [field.alias for field in model.model_fields.values() if field.alias]
    return {name: request.headers[name] for name in names if name in request.headers}


def _refusal(error: ValidationError) -> BookingError:
    # Without the input, which may be a password.
    items = error.errors(include_url=False, include_context=False, include_input=False)
    if items[0]["type"] == "json_invalid":
        return NotJson(items[0]["msg"])
    fields = [
        FieldProblem(".".join(str(part) for part in item["loc"]) or "body", item["msg"])
        for item in items
    ]
    return InvalidInput("; ".join(f"{f.field}: {f.reason}" for f in fields[:5]), fields=fields)
