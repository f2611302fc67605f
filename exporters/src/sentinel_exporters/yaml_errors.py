"""Say what is wrong with a YAML file that holds secrets, without showing them. Reads none."""

from __future__ import annotations

import yaml

_OF_TAGS = ("could not determine a constructor for the tag", "found undefined tag handle")


def describe_yaml_error(error: yaml.MarkedYAMLError) -> str:
    """Return the line and what is wrong there.

    Not the error's own text, which shows the lines; nor what PyYAML says of names in them, as
    a password that begins with one of YAML's signs is taken for such a name.
    """
    line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    problem = error.problem or "not YAML"
    if isinstance(error, yaml.composer.ComposerError):
        problem = "* is for names that & gives, each once; a text that begins so has quotes"
    elif problem.startswith(_OF_TAGS):
        problem = "tags, which begin with !, have no use here; a text that begins so has quotes"
    return line + problem
