"""Says in plain words whether sshd would let a user in now, and why. It changes nothing."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import time
from datetime import datetime

from .accounts import Accounts
from .cache import Cache
from .config import Config
from .errors import AgentError
from .plan import grants_at, utc
from .policy import Grant, Policy, format_time
from .registration import load_registration

GET_KEYS = "/usr/lib/sentinel/get-keys"


def explain(config: Config, user: str) -> tuple[list[str], bool]:
    """Return lines about the user's access, and whether get-keys has a key for the user now.

    For root: the cache is not for everybody to read.
    """
    now = utc(time.time())
    lines = [f"clock:       {format_time(now)}"]
    accounts = Accounts(
        min_uid=config.min_uid,
        breakglass_group=config.breakglass_group,
        ignored_users=config.ignored_users,
    )
    uid = accounts.uid_of(user)
    exemption = accounts.exemption(user, uid) if uid is not None else None
    lines.append(f"account:     {_account(user, uid, exemption)}")
    try:
        lines.append(f"node:        {load_registration(config.state_dir).node}")
    except AgentError as error:
        lines.append(f"node:        {error}")
    if not config.sshd_drop_in.is_file():
        lines.append(f"sshd:        {config.sshd_drop_in} is missing: sshd is not locked")
    try:
        policy = Cache(config.cache_file, config.cache_group).load()
    except AgentError as error:
        policy = None
        lines.append(f"policy:      {error}")
    else:
        lines.append(f"policy:      {_policy(config, policy, now)}")
    if policy is not None:
        lines += _grants(policy, user, now)
    try:
        answer = subprocess.run(
            [GET_KEYS, user], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    except OSError as error:
        lines.append(f"verdict:     refused; {GET_KEYS}: {error.strerror}")
        return lines, False
    keys = answer.stdout.splitlines()
    if keys:
        lines.append(f"verdict:     let in with {len(keys)} keys")
    else:
        lines.append("verdict:     refused; `journalctl -t sentinel-get-keys` says why")
    return lines, bool(keys)


def _account(user: str, uid: int | None, exemption: str | None) -> str:
    if uid is None:
        return f"{user}: no such account on this node"
    return f"{user}, uid {uid}{f': {exemption}, the lock leaves it alone' if exemption else ''}"


def _policy(config: Config, policy: Policy | None, now: datetime) -> str:
    if policy is None:
        return f"none: {config.cache_file} not found, nobody is let in"
    age_s = (now - policy.generated_at).total_seconds()
    expired = " EXPIRED: nobody is let in" if now >= policy.expires_at else ""
    return (
        f"version {policy.version}, mode {policy.mode}, for node {policy.node}, "
        f"{age_s:.0f} s old, expires {format_time(policy.expires_at)}{expired}"
    )


def _grants(policy: Policy, user: str, now: datetime) -> list[str]:
    grants = sorted(
        (grant for grant in policy.grants if grant.user == user),
        key=lambda grant: grant.not_before,
    )
    running = grants_at(policy, now)
    lines = [_grant(grant, grant in running) for grant in grants]
    for key in dict.fromkeys(key for grant in grants for key in grant.keys):
        lines.append(f"key:         {fingerprint(key)}")
    return lines or ["reservation: none in the policy"]


def _grant(grant: Grant, is_running: bool) -> str:
    what = "whole node" if grant.whole_node else f"{len(grant.devices)} devices"
    return (
        f"reservation: {grant.reservation} {'RUNNING' if is_running else 'not running'} "
        f"{format_time(grant.not_before)} to {format_time(grant.not_after)}, {what}"
    )


def fingerprint(key: str) -> str:
    """Return a key's type and SHA256 fingerprint, as `ssh-keygen -l` prints it."""
    kind, _, blob = key.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except ValueError:
        return f"{kind} (not base64)"
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
