"""The second sshd, for the break-glass accounts alone: its files, where they are, their text.

A flood of logins, a broken drop-in or a broken PAM stack on port 22 must not reach it, so it
shares nothing with the first but the program and the host keys. Pure text: it writes nothing.
"""

from __future__ import annotations

from pathlib import Path

from ..lock.drop_in import BREAKGLASS_KEY_FILES, PAM_SERVICE_NAME, PENALTIES
from ..lock.sshd import Sshd
from ..lock.sshd_listener import BREAKGLASS_CONFIG

CONFIG = Path(BREAKGLASS_CONFIG)
SERVICE = "sentinel-breakglass"
PAM_SERVICE = Path("/etc/pam.d") / SERVICE
# Before 9.8, sshd asks PAM for the service that has the name of the file it was started by.
PROGRAM = Path("/usr/lib/sentinel") / SERVICE
UNIT = "sentinel-breakglass-sshd.service"
# The first release that counts connections by where they come from.
PER_SOURCE = (8, 5)
PID_FILE = "/run/sentinel/breakglass-sshd.pid"

_CONFIG = """\
# ServerSentinel: the sshd of the break-glass accounts, beside the one that the lock is in.
# Written by sentinel-agent install. It serves root and the group, by the keys that only root
# writes, and nobody else.
Port {port}
PidFile {pid_file}
AllowGroups root {group}
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
GSSAPIAuthentication no
AuthorizedKeysFile {keys}
AuthorizedKeysCommand none
TrustedUserCAKeys none
PermitUserEnvironment no
PermitUserRC no
# Accounts without a password are locked ones to sshd, and get in with PAM only: with a stack of
# its own, which asks no directory.
UsePAM yes
{pam}LoginGraceTime 30
# Whoever does not get in is cut off at random once so many are waiting, and only then.
MaxStartups 100:30:200
{per_source}{penalties}ClientAliveInterval 60
ClientAliveCountMax 3
PrintMotd no
Subsystem sftp internal-sftp
"""

PAM_TEXT = """\
# ServerSentinel: PAM for the break-glass sshd. sshd has checked the key by now, and an account
# is shut out by taking its key away: nothing here may depend on a directory or a password.
auth     required pam_deny.so
account  required pam_permit.so
password required pam_deny.so
session  required pam_permit.so
session  optional pam_loginuid.so
"""

# Without it one machine, or one user of this one, fills all places and shuts operators out.
PER_SOURCE_TEXT = """\
# So many of these from one address, or one network of IPv6.
PerSourceMaxStartups 10
PerSourceNetBlockSize 32:64
"""

_UNIT = """\
[Unit]
Description=ServerSentinel: sshd for the break-glass accounts
Documentation=man:sshd(8)
After=network.target

[Service]
ExecStartPre=/usr/sbin/sshd -t -f {config}
ExecStart={program} -D -f {config}
ExecReload=/bin/kill -HUP $MAINPID
# Stopping it, or starting it anew, ends no session.
KillMode=process
Restart=always
RestartSec=2
# As sshd's own; and pid file and keys of a check are in the second.
RuntimeDirectory=sshd sentinel
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
# An operator must get in when memory is short.
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""


def render_config(sshd: Sshd, group: str, port: int) -> str:
    """Return the configuration for this sshd."""
    return _CONFIG.format(
        port=port,
        pid_file=PID_FILE,
        group=group,
        keys=BREAKGLASS_KEY_FILES,
        pam=f"PAMServiceName {SERVICE}\n" if sshd.version >= PAM_SERVICE_NAME else "",
        per_source=PER_SOURCE_TEXT if sshd.version >= PER_SOURCE else "",
        # There is no password to guess, and an operator's own mistakes must not shut him out.
        penalties="PerSourcePenalties no\n" if sshd.version >= PENALTIES else "",
    )


def render_unit(sshd: Sshd) -> str:
    """Return the systemd unit."""
    text = _UNIT.format(config=CONFIG, program=PROGRAM)
    return text.replace("/usr/sbin/sshd", str(sshd.binary))
