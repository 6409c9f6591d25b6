"""What the farm asks of addresses that users name, and what it never asks."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from receiver import receiver, status

from farm.addresses import AllowedHosts, is_public
from farm.errors import AddressRefusedError, UnreachableError
from farm.outside import Answer, ask, read_url
from farm.settings import Settings

LOOPBACK = AllowedHosts.read("127.0.0.0/8")
NOBODY = AllowedHosts()

HOSTILE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "5f00::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize("address", HOSTILE)
def test_addresses_of_the_inside_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(AddressRefusedError, match="not on the public internet.*FARM_ALLOWED_HOSTS"):
        read_url(f"https://{host}/hook", NOBODY)

    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    with pytest.raises(AddressRefusedError, match="innocent.example .* not on the public internet"):
        get("http://innocent.example/", NOBODY, resolve=resolve)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_not(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "017700000001", "localhost", "localhost."])
def test_other_spellings_of_the_inside_are_refused_when_they_are_resolved(host: str) -> None:
    with receiver() as server, pytest.raises((AddressRefusedError, UnreachableError), match=r"public|no host"):
        get(server.url.replace("127.0.0.1", host), NOBODY)
    assert server.received == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/", "is no address of the web"),
        ("file:///etc/passwd", "is no address of the web"),
        ("gopher://example.org/", "is no address of the web"),
        ("example.org/path", "is no address of the web"),
        ("http://", "is no address of the web"),
        ("http://example.org:0/", "is no address of the web"),
        ("http://example.org:65536/", "is no address of the web"),
        ("http://exa\nmple.org/", "is no address"),
        ("http://example.org/\ud800", "is no address"),
        ("http://\u2025/", "is no address"),
        ("https://user:secret@example.org/", "leave it out"),
        ("https://example.org\\@127.0.0.1/", "leave it out"),
        ("https://example.org/" + "a" * 2_000, "more than 2,000 characters"),
    ],
)
def test_what_is_no_address_of_the_web_is_refused(url: str, reason: str) -> None:
    with pytest.raises(AddressRefusedError, match=reason):
        read_url(url, NOBODY)


def test_what_is_allowed_may_be_asked(settings: Settings) -> None:
    assert read_url("http://127.0.0.1:81/a?b=c#d", LOOPBACK).raw_path == b"/a?b=c"
    assert read_url("http://hooks.internal/", AllowedHosts.read(" Hooks.Internal. , 10.0.0.0/8"), https=True)
    with pytest.raises(AddressRefusedError, match="use https"):
        read_url("http://example.org/", LOOPBACK, https=True)
    with receiver() as server:
        assert get(server.url, LOOPBACK).status == 204
        assert get(server.url.replace("127.0.0.1", "localhost"), AllowedHosts.read("localhost")).status == 204
        with pytest.raises(AddressRefusedError, match="public"):
            get(server.url, AllowedHosts.read("10.0.0.0/8,other.example"))
    assert len(server.received) == 2
    with pytest.raises(ValidationError, match="neither a host nor a network"):
        Settings(**settings.model_dump() | {"allowed_hosts": "10.0.0.0/8, http://x"})


def test_a_name_is_resolved_once_and_its_address_is_what_is_asked() -> None:
    """DNS rebinding: a name that is public when it is checked, and of the inside when it is asked."""
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    with receiver() as server:
        url = server.url.replace("127.0.0.1", "rebinding.example")
        # It listens at the second answer alone, and that is never asked for.
        with pytest.raises(UnreachableError):
            get(url, AllowedHosts.read("127.0.0.2"), resolve=resolve)
        assert asked == ["rebinding.example"]
        with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.1"):
            get(url, AllowedHosts.read("127.0.0.2"), resolve=resolve)
    assert server.received == []


def test_of_several_addresses_only_those_that_may_be_asked_are() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.3", "127.0.0.1"]

    with receiver() as server:
        assert get(server.url.replace("127.0.0.1", "many.example"), AllowedHosts.read("127.0.0.1"), resolve=resolve)
        (asked,) = server.received
    assert asked.headers["host"] == f"many.example:{server.url.rpartition(':')[2]}"


def test_redirects_are_not_followed_and_proxies_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", inside.url)
        handler.end_headers()

    with receiver() as inside, receiver(redirect) as outside:
        monkeypatch.setenv("HTTP_PROXY", inside.url)
        monkeypatch.setenv("ALL_PROXY", inside.url)
        assert get(outside.url, LOOPBACK) == Answer(302, "", b"")
    assert inside.received == []


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65_536)
            sent.append(65_536)

    with receiver(endless) as server, pytest.raises(AddressRefusedError, match="more than 1,000,000 bytes"):
        get(server.url, LOOPBACK, max_bytes=1_000_000)
    assert sum(sent) < 50_000_000

    def packed(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", "4")
        handler.end_headers()
        handler.wfile.write(b"\x1f\x8b\x08\x00")

    # What is packed stays so: a small body cannot become a large one.
    with receiver(packed) as server:
        assert get(server.url, LOOPBACK, max_bytes=10).body == b"\x1f\x8b\x08\x00"


@pytest.mark.parametrize("slow", ["silent", "headers", "body"])
def test_slow_answers_end_in_time(slow: str) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if slow == "body":
            handler.send_response(200)
            handler.end_headers()
        elif slow == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not over.wait(0.05):
            if slow != "silent":
                # Each comes soon enough; only all of it together takes too long.
                handler.wfile.write(b"x")

    with receiver(drip) as server:
        with pytest.raises(UnreachableError, match="within 0.5 s"):
            get(server.url, LOOPBACK, seconds=0.5, max_bytes=1_000_000)
        over.set()


def test_what_speaks_no_http_is_unreachable() -> None:
    mail = receiver(lambda handler: handler.wfile.write(b"220 smtp.example\r\n"))
    with mail as server, pytest.raises(UnreachableError, match="cannot be asked"):
        get(server.url, LOOPBACK)
    with pytest.raises(UnreachableError, match="cannot be asked"):
        get(server.url, LOOPBACK)


def test_certificates_are_checked_for_the_name_and_not_for_the_pinned_address(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "hooks.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    names = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    with receiver(status(204), tls) as server:
        port = server.url.rpartition(":")[2]
        assert get(f"https://hooks.example:{port}", LOOPBACK, resolve=resolve, tls=trusting).status == 204
        with pytest.raises(UnreachableError, match="certificate"):
            get(f"https://other.example:{port}", LOOPBACK, resolve=resolve, tls=trusting)
        with pytest.raises(UnreachableError, match="certificate"):
            get(f"https://hooks.example:{port}", LOOPBACK, resolve=resolve)
    assert names == ["hooks.example", "other.example", "hooks.example"]
    assert len(server.received) == 1


def get(url: str, allowed: AllowedHosts, seconds: float = 20, **more: Any) -> Answer:
    return asyncio.run(ask("GET", read_url(url, allowed), allowed=allowed, seconds=seconds, **more))
