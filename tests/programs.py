"""Programs of the system that tests use: found on this machine, or installed where that is allowed."""

import os
import shutil
import subprocess


def find_program(*names: str) -> str | None:
    """Path of the first of them that is there. On Debian as root, the package of the first name is installed otherwise."""
    for name in names:
        if path := shutil.which(name):
            return path
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", names[0]], check=True, env=environment)
        return shutil.which(names[0])
    return None
