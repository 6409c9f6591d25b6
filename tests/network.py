"""Several machines on one: network namespaces of Linux, joined by a switch of their own, whose cables can be pulled.

Nothing of it touches the machine's own network. It takes root, as the servers of a farm's tests do.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

SUBNET = "10.77.0"
_numbers = count()


@dataclass(frozen=True)
class Host:
    """A machine with an address of its own, and nothing but its own loopback and a cable to the switch."""

    namespace: str
    address: str
    port: str
    """Of the switch."""
    switch: str

    def command(self, *command: str) -> list[str]:
        """The command line that runs a command there."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def run(self, *command: str, environment: Mapping[str, str] | None = None, seconds: float = 240) -> str:
        """Run a command there to its end; its output."""
        ran = subprocess.run(
            self.command(*command),
            env=os.environ | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert ran.returncode == 0, f"{command}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        return ran.stdout

    def pull_cable(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def plug_in(self) -> None:
        """As before."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


@contextmanager
def network(*names: str) -> Iterator[list[Host]]:
    """Hosts of these names for the time of the context."""
    mark = f"farm{os.getpid()}n{next(_numbers)}"
    switch = f"{mark}-switch"
    with ExitStack() as cleanup:
        _namespace(switch, cleanup)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        hosts = []
        for number, name in enumerate(names, start=1):
            host = Host(f"{mark}-{name}", f"{SUBNET}.{number}", f"port{number}", switch)
            _namespace(host.namespace, cleanup)
            _ip("-n", host.namespace, "link", "add", "wire", "type", "veth", "peer", host.port, "netns", switch)
            _ip("-n", switch, "link", "set", host.port, "master", "bridge", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "wire")
            for link in ("lo", "wire"):
                _ip("-n", host.namespace, "link", "set", link, "up")
            hosts.append(host)
        yield hosts


def _namespace(name: str, cleanup: ExitStack) -> None:
    _ip("netns", "add", name)
    cleanup.callback(_ip, "netns", "delete", name)


def _ip(*arguments: str) -> None:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"ip {' '.join(arguments)}: {ran.stderr.strip()}"
