"""Which names a person may have: a name is also the Unix account on every node."""

from __future__ import annotations

import re

from ..errors import InvalidInput

NAME_PATTERN = r"^[a-z_][a-z0-9_-]{0,31}$"
_NAME = re.compile(NAME_PATTERN[1:-1])

# Accounts that Debian (base-passwd, 12 and 13) and Fedora (setup, 41) create, and those of
# services common on GPU servers. A person with such a name would get that account's rights.
_SYSTEM_NAMES = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats
    nobody messagebus sshd ntp chrony postfix exim dnsmasq avahi colord geoclue gdm lightdm
    saned pulse rtkit polkitd polkit tss uuidd usbmux tcpdump statd rpc rpcuser nfsnobody
    adm shutdown halt operator ftp dbus nscd sssd unbound named libvirt-qemu libvirt qemu
    docker containerd mysql mariadb postgres redis mongodb memcache rabbitmq nginx apache
    httpd tomcat jenkins git gitlab prometheus alertmanager grafana node-exporter slurm munge
    nvidia-persistenced nvidia-dcgm dcgm hwhiaiuser hwbase hwdmuser hwsysuser kmsadmin
    landscape lxd pollinate fwupd-refresh snapd whoopsie kernoops cups-pk-helper hplip
    sudo wheel shadow utmp staff users nogroup sentinel
    """.split()  # noqa: SIM905  a hundred quoted strings read worse
)
# systemd's own accounts, and our own services'.
_SYSTEM_PREFIXES = ("systemd-", "sentinel-", "_")


def check_user_name(name: str) -> None:
    """Raise InvalidInput for the field `name` unless a person may have it."""
    if not _NAME.fullmatch(name):
        raise InvalidInput.field(
            "name",
            "must begin with a small letter, hold only small letters, digits, _ and -, "
            "and have at most 32 characters",
        )
    if name in _SYSTEM_NAMES or name.startswith(_SYSTEM_PREFIXES):
        raise InvalidInput.field("name", "belongs to the system; choose another one")
