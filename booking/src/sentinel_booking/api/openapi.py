"""Completes the OpenAPI document that APIFlask generates. Describes, decides nothing."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask

from ..auth import guard_of
from .problems import PROBLEM_SCHEMA
from .schemas import MAX_ID

_PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}
_METHODS = ("get", "post", "put", "patch", "delete")


def init_openapi(app: APIFlask) -> None:
    """Set what describes us, and repair what the generator leaves out."""
    app.config.update(
        # As dicts: a Pydantic class here makes /openapi.json fail.
        HTTP_ERROR_SCHEMA=PROBLEM_SCHEMA,
        VALIDATION_ERROR_SCHEMA=PROBLEM_SCHEMA,
        AUTO_SERVERS=False,
        AUTO_OPERATION_ID=True,
        SECURITY_SCHEMES={
            "person": {"type": "http", "scheme": "bearer", "description": "access token"},
            "refresh": {"type": "http", "scheme": "bearer", "description": "refresh token"},
            "agent": {"type": "http", "scheme": "bearer", "description": "a node's agent"},
            "scrape": {"type": "http", "scheme": "bearer", "description": "Prometheus"},
            "webhook": {"type": "http", "scheme": "bearer", "description": "Alertmanager"},
        },
    )

    # The document is JSON made by apispec: Any is its shape. A string only for YAML.
    @app.spec_processor
    def complete(spec: dict[Any, Any] | str) -> dict[Any, Any] | str:
        if isinstance(spec, str):
            raise TypeError("the OpenAPI document is made as JSON")
        spec["components"].setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
        schemes = _schemes_by_operation(app)
        for operations in spec["paths"].values():
            for method, operation in operations.items():
                if method in _METHODS:
                    _complete_operation(
                        method, operation, schemes.get(operation["operationId"])
                    )
        return spec


def _complete_operation(method: str, operation: dict[str, Any], scheme: str | None) -> None:
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["required"] = True
            if parameter["schema"].get("type") == "integer":
                parameter["schema"] |= {"minimum": 0, "maximum": MAX_ID}
    responses = operation["responses"]
    expected = {"400": "The request cannot be read"}
    if method != "get":
        # Also where none is expected: it is refused before anybody looks.
        expected |= {"411": "The body has no Content-Length", "413": "The body is too large"}
    if "requestBody" in operation:
        expected |= {
            "415": "The body is not JSON",
            "422": "A field is not valid",
        }
    if scheme is not None:
        operation["security"] = [{scheme: []}]
        expected |= {"401": "No valid token", "403": "The role does not permit it"}
    for status, description in expected.items():
        responses.setdefault(status, {"description": description})
    for status, response in responses.items():
        if status.startswith(("4", "5")):
            response["content"] = {"application/problem+json": {"schema": _PROBLEM_REF}}


def _schemes_by_operation(app: APIFlask) -> dict[str, str]:
    """Map operation ids, as APIFlask makes them, to the guards' schemes."""
    schemes: dict[str, str] = {}
    for rule in app.url_map.iter_rules():
        guard = guard_of(app.view_functions[rule.endpoint])
        if guard is None or guard.scheme is None:
            continue
        for method in _METHODS:
            schemes[f"{method}_{rule.endpoint.replace('.', '_')}"] = guard.scheme
    return schemes
