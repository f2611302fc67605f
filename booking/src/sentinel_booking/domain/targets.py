"""What may be a node, an address and a scrape target, and how they are labelled. No IO."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

# A node's name is a label value, a path segment and a mail subject: DNS-like, lower case.
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
# Clusters and tags; a comma would break the `tags` label.
_WORD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_JOB = re.compile(r"[a-z][a-z0-9_-]{0,62}")

# The job whose targets are the nodes' BMCs; only an operator sets those addresses.
BMC_JOB = "ipmi"


@dataclass(frozen=True)
class TargetGroup:
    """One group of Prometheus' http_sd: every value is a string, as it demands."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def is_node_name(text: str) -> bool:
    """Lower-case letters, digits, '.', '_', '-'; at most 63 characters."""
    return bool(_NAME.fullmatch(text))


def is_word(text: str) -> bool:
    """Letters, digits, '.', '_', '-'; at most 63 characters."""
    return bool(_WORD.fullmatch(text))


def is_job(text: str) -> bool:
    """A scrape job: lower-case letters, digits, '_', '-'; at most 63 characters."""
    return bool(_JOB.fullmatch(text))


def is_host(text: str) -> bool:
    """An IP address without zone, or a host name (RFC 1123; '_' is met in practice)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.split(".")
        return (
            len(text) <= 253
            and all(_HOST_LABEL.fullmatch(label) for label in labels)
            # 10.0.0.300 is a mistyped address, not a name.
            and not labels[-1].isdigit()
        )
    return "%" not in text


def join_host_port(host: str, port: int) -> str:
    """Return "host:port", with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_port(address: str) -> int:
    """Return the port of a "host:port" that join_host_port() made."""
    return int(address.rpartition(":")[2])


def target_group(address: str, *, node: str, cluster: str, tags: Sequence[str]) -> TargetGroup:
    """Return the group of one target; empty labels are left out.

    `tags` becomes ",a,b,", so that a rule can match one tag as `.*,a,.*`.
    """
    labels = {"node": node}
    if cluster:
        labels["cluster"] = cluster
    if tags:
        labels["tags"] = f",{','.join(tags)},"
    return TargetGroup(targets=(address,), labels=labels)
