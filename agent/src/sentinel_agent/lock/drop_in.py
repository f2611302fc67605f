"""The text of sshd's configuration: the lock's drop-in, the banner, and what sshd reads first.

Pure text in, text out: it reads and writes no file.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GET_KEYS = "/usr/lib/sentinel/get-keys"
BANNER = "/etc/sentinel/banner"
BREAKGLASS_KEYS = "/etc/sentinel/breakglass/%u"
# AuthorizedKeysFile for the break-glass accounts: the operators' keys, and the one that a check
# puts there for a minute.
BREAKGLASS_KEY_FILES = f"{BREAKGLASS_KEYS} /run/sentinel/check/%u"

# The first release that has what the drop-in needs: `Include` in sshd_config.
OLDEST = (8, 2)
# `expiry-time` takes Z for UTC from here on; before, it is sshd's local time.
UTC_EXPIRY = (9, 1)
# sshd shuts out addresses whose logins fail, unless they are listed as exempt.
PENALTIES = (9, 8)
# sshd asks PAM for the service `sshd`, or the one it is told; before, for its own file's name.
PAM_SERVICE_NAME = (9, 8)
# The checks log in from here, and a user's failed tries must not shut them out.
LOOPBACK = ("127.0.0.1", "::1")

MARK = "# ServerSentinel's lock is read first; sentinel-agent takes this line away again."

_COMMON = """\
# ServerSentinel's hard lock: no running reservation, no SSH login.
# Written by sentinel-agent, which puts back what is changed here. sshd takes the first value
# that it reads, so this must be read before everything else.

# The booked devices; LD_PRELOAD and its like stay refused.
PermitUserEnvironment ASCEND_*,CUDA_*
UsePAM yes
LoginGraceTime 30
# A hung login must not starve the break-glass accounts.
MaxStartups 100:30:200
ClientAliveInterval 60
ClientAliveCountMax 3
"""

_EXEMPT = """\
# Refused logins must not shut out an operator's address, or a gateway's that many share.
PerSourcePenaltyExemptList {networks}
"""

_BREAKGLASS = """\
    AuthorizedKeysCommand none
    AuthorizedKeysFile {keys}
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    TrustedUserCAKeys none
    Banner none
"""

_LOCKED = """
# Everybody else: the keys of a running reservation, and no other way in.
Match all
    AuthorizedKeysFile none
    AuthorizedKeysCommand {command}
    AuthorizedKeysCommandUser {akc_user}
    AuthenticationMethods publickey
    PubkeyAuthentication yes
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    HostbasedAuthentication no
    GSSAPIAuthentication no
    TrustedUserCAKeys none
    AuthorizedPrincipalsFile none
    AuthorizedPrincipalsCommand none
    PermitUserRC no
    # It says where to book.
    Banner {banner}
"""


@dataclass(frozen=True)
class LockText:
    """What the drop-in depends on; `version` is OpenSSH's, as (9, 2)."""

    version: tuple[int, int]
    akc_user: str
    breakglass_group: str
    operator_networks: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The value of AuthorizedKeysCommand."""
        option = "" if self.version >= UTC_EXPIRY else " --local-expiry"
        return f"{GET_KEYS}{option} %u"

    @property
    def exempt_networks(self) -> str:
        """The value of PerSourcePenaltyExemptList; empty where sshd does not know it."""
        if self.version < PENALTIES:
            return ""
        return ",".join((*LOOPBACK, *self.operator_networks))


def render_drop_in(text: LockText) -> str:
    """Return the drop-in for this sshd."""
    parts = [_COMMON]
    if text.exempt_networks:
        parts.append(_EXEMPT.format(networks=text.exempt_networks))
    breakglass = _BREAKGLASS.format(keys=BREAKGLASS_KEY_FILES)
    parts += [
        "\n# The break-glass accounts. Their keys are in folders that only root writes.\n",
        f"Match User root\n{breakglass}    PermitRootLogin prohibit-password\n",
        f"Match Group {text.breakglass_group}\n{breakglass}",
        _LOCKED.format(command=text.command, akc_user=text.akc_user, banner=BANNER),
    ]
    return "".join(parts)


def render_banner(booking_url: str) -> str:
    """Return what sshd shows before a login to whoever is no operator."""
    where = f" at {booking_url}" if booking_url else ""
    wo = f"：{booking_url}" if booking_url else "。"
    return (
        f"This server is shared by booking: book it{where} to log in.\n"
        f"本服务器须预约使用，登录前请先预约{wo}\n"
    )


def is_read_first(main: str, drop_in: str, names: Iterable[str]) -> bool:
    """Say whether sshd reads `drop_in` before all else.

    `main` is the main configuration's text, `names` the files in the drop-in's folder. Other
    settings before it might not matter; it is not for us to know which.
    """
    folder, _, own = drop_in.rpartition("/")
    for line in main.splitlines():
        words = _words(line)
        if not words:
            continue
        if words[0].lower() != "include" or len(words) < 2:
            return False
        pattern = words[1]
        if not pattern.startswith("/"):
            # sshd_config(5): a relative path is one in /etc/ssh.
            pattern = f"/etc/ssh/{pattern}"
        if pattern == drop_in:
            return True
        if pattern.rpartition("/")[0] != folder:
            return False
        name = pattern.rpartition("/")[2]
        # glob(3) sorts by bytes in sshd, and does not show hidden files to a pattern.
        read = [n for n in names if fnmatch.fnmatchcase(n, name) and not n.startswith(".")]
        return fnmatch.fnmatchcase(own, name) and min([*read, own]) == own
    return False


def put_first(main: str, drop_in: str) -> str:
    """Return the main configuration with a marked line at its top that reads the drop-in."""
    return f"{MARK}\nInclude {drop_in}\n{take_out(main, drop_in)}"


def take_out(main: str, drop_in: str) -> str:
    """Return the main configuration without what `put_first` put there."""
    return main.replace(f"{MARK}\nInclude {drop_in}\n", "")


def foreign_commands(texts: Sequence[tuple[str, str]]) -> list[str]:
    """Return `file: command` for each AuthorizedKeysCommand in these files (name, text)."""
    found = []
    for name, text in texts:
        for line in text.splitlines():
            words = _words(line)
            if len(words) > 1 and words[0].lower() == "authorizedkeyscommand":
                command = " ".join(words[1:])
                if command.lower() != "none" and not command.startswith(GET_KEYS):
                    found.append(f"{name}: {command}")
    return found


def _words(line: str) -> list[str]:
    """Return a line's words; none for a comment. sshd also takes `Keyword=value`."""
    text = re.sub(r"^(\s*\w+)\s*=\s*", r"\1 ", line).strip()
    if not text or text.startswith("#"):
        return []
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # an open quote: sshd refuses it, and says so better
        return text.split()
