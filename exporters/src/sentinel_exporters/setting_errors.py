"""Say in plain words what is wrong with a setting. Shows no value: it may be a secret."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

# By pydantic's own names (errors.pydantic.dev), where its words are a programmer's.
_WORDS = {
    "missing": "is missing",
    "string_type": "must be text",
    "path_type": "must be a path",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be names with values",
    "model_type": "must be names with values",
    "model_attributes_type": "must be names with values",
}
# "Input should be greater than 0", "String should have at least 1 character".
_SHOULD = re.compile(r"[A-Z][a-z]+ should (?=be |have )")


def describe_setting_error(error: ErrorDetails, whole: str, unknown: str) -> str:
    """Return the setting's place, or `whole` for all of them, and what is wrong there.

    `unknown` is said of one that does not exist.
    """
    kind, place = error["type"], ".".join(str(part) for part in error["loc"]) or whole
    if kind == "extra_forbidden":
        return f"{place}: {unknown}"
    if kind == "value_error":  # a check of ours
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: {_WORDS.get(kind) or _SHOULD.sub('must ', error['msg'])}"
