"""The one door through which the farm speaks to addresses that users name: webhooks, and pictures that go in.

A name is resolved once, what it resolves to is checked (``farm.addresses``), and the connection goes to exactly that.
Redirects are not followed, proxies of the environment are not used.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import anyio.to_thread
import httpcore
import httpx
from typing_extensions import override

from farm import __version__
from farm.addresses import Address, AllowedHosts, is_public
from farm.errors import AddressRefusedError, UnreachableError

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From host and port to addresses; raises OSError."""

MAX_URL_CHARACTERS = 2_000
#: Of a host with many addresses so many are tried, each so long: one that swallows packets must not use up all time.
MAX_ADDRESSES = 3
CONNECT_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    media_type: str
    body: bytes


def read_url(text: str, allowed: AllowedHosts, *, https: bool = False) -> httpx.URL:
    """An address that may be asked, as far as one can tell without asking. Raises AddressRefusedError.

    With ``https`` plain HTTP is for allowed hosts alone.
    """
    if len(text) > MAX_URL_CHARACTERS:
        raise AddressRefusedError(f"has more than {MAX_URL_CHARACTERS:,} characters")
    try:
        url = httpx.URL(text)
        port_fits = url.port is None or 0 < url.port < 2**16
    except (httpx.InvalidURL, ValueError):
        raise AddressRefusedError("is no address; write one such as https://example.org/path") from None
    if url.scheme not in ("http", "https") or not url.host or not port_fits:
        raise AddressRefusedError("is no address of the web; write one such as https://example.org/path")
    if url.userinfo:
        raise AddressRefusedError("holds a name or a password, which would stand in logs; leave it out")
    if https and url.scheme != "https" and not allowed.names_host(url.host):
        raise AddressRefusedError(
            f"is not encrypted; use https://, or let an operator allow {url.host} in FARM_ALLOWED_HOSTS"
        )
    try:
        address = ipaddress.ip_address(url.host)
    except ValueError:
        pass
    else:
        _refuse_unless_reachable(url.host, address, allowed)
    return url.copy_with(fragment=None)


async def ask(
    method: str,
    url: httpx.URL,
    *,
    allowed: AllowedHosts,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    max_bytes: int = 0,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request, and wait at most so many seconds for all of its answer. Only the body of a 200 is read.

    Raises AddressRefusedError for an address that is not public, or a body of more than ``max_bytes``;
    UnreachableError when there was no answer (in time).
    """
    backend = _PinnedBackend(allowed, resolve or _resolve)
    # Read once: another reading of the same text could find another host in it.
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    named = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": f"sdxl-farm/{__version__}",
        "Accept-Encoding": "identity",
        **(headers or {}),
    }
    try:
        async with (
            asyncio.timeout(seconds),
            httpcore.AsyncConnectionPool(
                ssl_context=tls or _trusted(), network_backend=backend, max_keepalive_connections=0
            ) as pool,
            pool.stream(method, target, headers=list(named.items()), content=content) as response,
        ):
            media_type = dict(response.headers).get(b"content-type", b"").decode("latin-1")
            body = await _read(response.aiter_stream(), max_bytes) if response.status == 200 and max_bytes else b""
            return Answer(response.status, media_type, body)
    except TimeoutError:
        raise UnreachableError(f"did not answer within {seconds:g} s") from None
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise UnreachableError(f"cannot be asked: {_reason(error)}") from error


class _PinnedBackend(httpcore.AnyIOBackend):
    """Connects to exactly the addresses that were checked. TLS keeps to the host's name: it is begun above this."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"there is no host {host}") from error
        reachable = self._reachable(host, [ipaddress.ip_address(text) for text in found])
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in reachable[:MAX_ADDRESSES]:
            try:
                return await super().connect_tcp(str(address), port, CONNECT_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _reachable(self, host: str, found: list[Address]) -> list[Address]:
        if self._allowed.names_host(host):
            return found
        reachable = [address for address in found if is_public(address) or self._allowed.holds(address)]
        if found and not reachable:
            _refuse_unless_reachable(host, found[0], self._allowed)
        return reachable


def _refuse_unless_reachable(host: str, address: Address, allowed: AllowedHosts) -> None:
    if not is_public(address) and not allowed.holds(address):
        where = f"{address}" if host == str(address) else f"{host} ({address})"
        raise AddressRefusedError(
            f"leads to {where}, which is not on the public internet; an operator can allow it in FARM_ALLOWED_HOSTS"
        )


async def _resolve(host: str, port: int) -> list[str]:
    # Not the event loop's own: its threads are few, and would be held by names that are slow to resolve.
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _read(parts: AsyncIterable[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > max_bytes:
            raise AddressRefusedError(f"answers with more than {max_bytes:,} bytes; at most so many are taken")
    return bytes(body)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


@cache
def _trusted() -> ssl.SSLContext:
    """The certificate authorities that httpx trusts, or those of SSL_CERT_FILE."""
    return httpx.create_ssl_context()
