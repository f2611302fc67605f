"""Runs first in a frozen program: what that starts gets an environment without traces of it.

PyInstaller's start program puts the folder's libraries into LD_LIBRARY_PATH. This process has
read it by now; sshd, npu-smi and whatever else is started would load our OpenSSL in place of
the system's. Its other variables would tell a frozen program that it is this one's child.
"""

import os

_before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if _before is not None:
    os.environ["LD_LIBRARY_PATH"] = _before
for _name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[_name]
