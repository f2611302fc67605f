"""Fill the settings into the Prometheus, Alertmanager and Grafana files; write them elsewhere.

It starts and reloads nothing, and reads no secret: those stay in files that it only names.

Usage: render.py OUT [NAME=VALUE ...]
       render.py --list

A template says @NAME@ where a setting belongs. Every @NAME@ must be a known setting, and every
given NAME must be one too. OUT is then complete: its files name each other by relative paths,
or by OUT's own, which templates say as @OUT@.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")

# A value lands inside a quoted YAML scalar, where these could end it.
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f'\"\\]")

# Folder under OUT: the files that belong there.
SOURCES = {
    "prometheus": "provisioning/prometheus/*.yml",
    "prometheus/rules": "provisioning/prometheus/rules/*.yml",
    "prometheus/alerts": "alert_rules/*.yml",
    "alertmanager": "provisioning/alertmanager/*.yml",
    "alertmanager/templates": "provisioning/alertmanager/templates/*.tmpl",
    "grafana/datasources": "provisioning/grafana/datasources/*.yml",
    "grafana/dashboards": "provisioning/grafana/dashboards/*.yml",
    "grafana/json": "provisioning/grafana/json/*.json",
}


class RenderError(Exception):
    """Settings or templates that do not fit each other; one problem on each line."""


@dataclass(frozen=True)
class Setting:
    """One placeholder. A `default` of None means that it must be given."""

    default: str | None
    meaning: str


SETTINGS = {
    "BOOKING_SCHEME": Setting("http", "http or https, to reach booking"),
    "BOOKING_ADDRESS": Setting("127.0.0.1:8800", "booking's host:port"),
    "BOOKING_PUBLIC_URL": Setting("http://127.0.0.1:8800", "booking, as people open it"),
    "SCRAPE_TOKEN_FILE": Setting(None, "path of the token for /sd/<job> and /metrics"),
    "WEBHOOK_TOKEN_FILE": Setting(None, "path of the token for the alerts' webhook"),
    "PROMETHEUS_ADDRESS": Setting("127.0.0.1:9090", "Prometheus' host:port"),
    "ALERTMANAGER_ADDRESS": Setting("127.0.0.1:9093", "Alertmanager's host:port"),
    "IPMI_EXPORTER_ADDRESS": Setting("127.0.0.1:9290", "host:port of the exporter with ipmi"),
    "GRAFANA_PUBLIC_URL": Setting("http://127.0.0.1:3000", "Grafana, as people open it"),
    "RUNBOOKS": Setting(
        "docs/runbooks", "where <AlertName>.md is found: a URL, or the path in this repository"
    ),
    "SCRAPE_INTERVAL": Setting("5s", "between scrapes of booking and the nodes"),
    "IPMI_SCRAPE_INTERVAL": Setting("30s", "between scrapes of a BMC; BMCs are slow"),
    "IPMI_SCRAPE_TIMEOUT": Setting("25s", "at most the interval"),
    "SD_REFRESH_INTERVAL": Setting("3s", "between questions for the list of targets"),
    "EVALUATION_INTERVAL": Setting("10s", "between evaluations of the rules"),
    "NODE_OFFLINE_FOR": Setting("2m", "silence of a node before NodeOffline"),
    "SMTP_SMARTHOST": Setting("127.0.0.1:25", "host:port of the mail server"),
    "SMTP_FROM": Setting("sentinel@localhost", "the mails' sender"),
    "SMTP_TO": Setting("root@localhost", "the operators' addresses, with commas between"),
    "SMTP_REQUIRE_TLS": Setting("true", "false sends mail, and the password, in the clear"),
    "SMTP_AUTH_USERNAME": Setting("", "empty: no sign-in at the mail server"),
    "SMTP_AUTH_PASSWORD_FILE": Setting("", "path of the mail server's password"),
    "GROUP_WAIT": Setting("10s", "wait for more alerts before a group's first mail"),
    "GROUP_INTERVAL": Setting("1m", "between mails about a group that changed, and RECOVERED"),
}


def render(template: str, values: Mapping[str, str]) -> str:
    """Return `template` with each @NAME@ replaced. Raises RenderError for names not given."""
    unknown = sorted(set(PLACEHOLDER.findall(template)) - values.keys())
    if unknown:
        raise RenderError("\n".join(f"@{name}@: no such setting" for name in unknown))
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def complete(given: Mapping[str, str]) -> dict[str, str]:
    """Return every setting's value. Raises RenderError that names all that is wrong."""
    problems = [f"{name}: no such setting" for name in sorted(given.keys() - SETTINGS.keys())]
    values: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        value = given.get(name, setting.default)
        if value is None:
            problems.append(f"{name}: must be given ({setting.meaning})")
        elif FORBIDDEN.search(value):
            problems.append(f"{name}: quotes, backslashes and control characters are refused")
        else:
            values[name] = value
    if problems:
        raise RenderError("\n".join(problems))
    return values


def render_tree(out: Path, given: Mapping[str, str], root: Path = ROOT) -> list[Path]:
    """Write all files below `out` and return their paths. Raises RenderError, writing nothing.

    A file of the same kind that is in one of the folders and has no template any more goes, so
    that a removed rule does not live on.
    """
    out = out.resolve()
    if FORBIDDEN.search(str(out)):
        raise RenderError(f"{out}: quotes, backslashes and control characters are refused")
    values = complete(given) | {"OUT": str(out)}
    texts: dict[Path, str] = {}
    problems: list[str] = []
    for folder, pattern in SOURCES.items():
        for source in sorted(root.glob(pattern)):
            try:
                text = render(source.read_text(encoding="utf-8"), values)
            except RenderError as error:
                problems += [
                    f"{source.relative_to(root)}: {line}" for line in str(error).splitlines()
                ]
            else:
                texts[out / folder / source.name] = text
    if problems:
        raise RenderError("\n".join(problems))
    for folder, pattern in SOURCES.items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in (out / folder).glob(Path(pattern).name):
            if old not in texts:
                old.unlink()
    for path, text in texts.items():
        # By rename: Prometheus may be reading the file at this moment.
        unfinished = path.with_name(path.name + ".new")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    return list(texts)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status: 2 for a problem with what was given."""
    if list(arguments) == ["--list"]:
        for name, setting in SETTINGS.items():
            default = "(must be given)" if setting.default is None else f"[{setting.default}]"
            sys.stdout.write(f"{name} {default} {setting.meaning}\n")
        return 0
    if not arguments or arguments[0].startswith("-"):
        sys.stderr.write(f"{__doc__}")
        return 2
    given: dict[str, str] = {}
    for argument in arguments[1:]:
        name, equals, value = argument.partition("=")
        if not equals or name in given:
            sys.stderr.write(f"{argument}: not NAME=VALUE, or given twice\n")
            return 2
        given[name] = value
    try:
        render_tree(Path(arguments[0]), given)
    except (RenderError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
