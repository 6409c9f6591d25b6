"""Which addresses the farm may speak to when users name them.

Whoever may name an address must not reach with it what only the farm can reach: the machine itself, its network, the
metadata service of its cloud. ``FARM_ALLOWED_HOSTS`` makes exceptions.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")
#: All addresses of the present internet are in here, but for those that ``ipaddress`` calls otherwise.
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
#: Translators put the IPv4 address that is meant into the last 32 bits (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Global by their numbers, and yet not to be reached from outside; some versions of Python do not know all of them.
_REFUSED_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's virtual machines ask this address for their configuration.
        "192.0.0.0/24",  # Protocols' own, and the metadata service of Oracle's cloud.
        "192.88.99.0/24",  # Relays of 6to4.
        "2001::/23",  # Teredo and other protocols' own.
        "2001:db8::/32",
        "3fff::/20",  # Documentation.
    )
)


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """What may be reached although it is not public: hosts by name, and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def read(cls, text: str) -> "AllowedHosts":
        """From names, addresses and networks between commas; raises ValueError for what is none of these."""
        names, networks = set(), []
        for entry in filter(None, (entry.strip() for entry in text.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                name = entry.rstrip(".").lower()
                if not _HOST.fullmatch(name):
                    raise ValueError(
                        f"{entry!r} is neither a host nor a network; write hosts.example, 10.1.2.3 or 10.0.0.0/8"
                    ) from None
                names.add(name)
        return cls(frozenset(names), tuple(networks))

    def names_host(self, host: str) -> bool:
        """Whether the host itself is allowed, by its name or its address."""
        name = host.rstrip(".").lower()
        try:
            return name in self.names or self.holds(ipaddress.ip_address(name))
        except ValueError:
            return False

    def holds(self, address: Address) -> bool:
        """Whether one of the networks holds the address."""
        return any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and to nothing else."""
    if any(address in network for network in _REFUSED_NETWORKS) or address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not address.is_reserved
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(address.packed[-4:]))
    if address.sixtofour is not None:
        return is_public(address.sixtofour)
    return address in _GLOBAL_IPV6


def is_reached_by_others(host: str | None) -> bool:
    """Whether a server on this host, or address, can be reached from other machines; not so on a Unix socket (a path).

    Of what cannot be found it is not known.
    """
    if not host or host.startswith("/"):
        return False
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return not all(ipaddress.ip_address(one[4][0]).is_loopback for one in found)
