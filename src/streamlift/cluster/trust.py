"""Who may talk over a link: TLS, a CA or a pinned certificate, and the token, on both sides."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import ipaddress
import os
import random
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from streamlift.config import ClusterConfig
from streamlift.errors import ConfigError, WorkerLost

__all__ = [
    "Door",
    "Trust",
    "fingerprint_of",
    "host_of",
    "is_local",
    "make_certificate",
    "open_channel",
    "server_credentials",
    "split_address",
]

NAME = "streamlift-worker"
"""The name in certificates that `make_certificate` makes."""
REFUSED_AFTER_S = (0.5, 2.0)
WRONG_A_MINUTE = 10
_ADDRESSES = 1024
_DIAL_S = 3.0
REFUSAL = "wrong or missing token"


@dataclass(frozen=True, slots=True)
class Trust:
    """What an anchor knows of a worker before it talks to it. `fingerprint`: sha256:HEX."""

    token: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"address {address!r}", found=address, expected="HOST:PORT or unix:PATH")
    return host.strip("[]"), int(port)


def host_of(address: str) -> str:
    """The machine of an address; all Unix sockets are on one."""
    return "" if address.startswith("unix:") else split_address(address)[0]


def is_local(address: str) -> bool:
    """Whether nobody on another machine can listen in: a Unix socket or loopback."""
    host = host_of(address)
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ---- the anchor's side ----

_OPTIONS = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_frame_size", 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
"""Windows are kept small: what is on its way in them is late, and cannot be taken back."""


async def open_channel(address: str, trust: Trust, receives: int) -> grpc.aio.Channel:
    """A channel of its own to one worker. Raises WorkerLost when its certificate is not the
    pinned one, or a certificate or key cannot be read."""
    options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.max_receive_message_length", receives)]
    if trust.fingerprint is None and trust.tls_ca is None:
        # The token must not go over a network in the clear.
        if not is_local(address):
            raise WorkerLost(f"{address} is on another machine: a CA or a fingerprint is needed")
        return grpc.aio.insecure_channel(address, options=options)
    if trust.fingerprint is not None:
        roots, name = await _pinned(address, trust.fingerprint)
        options.append(("grpc.ssl_target_name_override", name))
    else:
        assert trust.tls_ca is not None
        roots = await _contents(trust.tls_ca)
    chain = key = None
    if trust.tls_cert and trust.tls_key:
        chain, key = await _contents(trust.tls_cert), await _contents(trust.tls_key)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    return grpc.aio.secure_channel(address, credentials, options=options)


async def _contents(file: str) -> bytes:
    try:
        return await asyncio.to_thread(Path(file).read_bytes)
    except OSError as error:
        raise WorkerLost(f"{file} cannot be read: {error.strerror}", found=file) from error


async def _pinned(address: str, fingerprint: str) -> tuple[bytes, str]:
    """The worker's certificate, if it is the pinned one, and a name that it is for."""
    host, port = split_address(address)
    look = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # no CA is loaded, which takes its time
    look.check_hostname = False
    look.verify_mode = ssl.CERT_NONE  # it is compared below; nothing is said on this connection
    look.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(_DIAL_S):
            _, writer = await asyncio.open_connection(host, port, ssl=look)
    except (OSError, TimeoutError) as error:
        raise WorkerLost(f"no TLS connection to {address}: {error or 'no answer'}") from error
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    found = "sha256:" + hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(found, fingerprint.lower()):
        raise WorkerLost(
            f"{address} shows another certificate than the pinned one: {found}",
            found=found,
            expected=fingerprint,
        )
    return ssl.DER_cert_to_PEM_cert(der).encode(), _a_name_of(der)


def _a_name_of(der: bytes) -> str:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    if names is not None:
        for name in names.get_values_for_type(x509.DNSName):
            return str(name)
        for address in names.get_values_for_type(x509.IPAddress):
            return str(address)
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(common[0].value) if common else NAME


def fingerprint_of(pem: bytes) -> str:
    """sha256:HEX of the first certificate in a PEM file."""
    text = pem.decode("ascii", "replace")
    end = "-----END CERTIFICATE-----"
    first = text[: text.index(end) + len(end)] + "\n"
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


# ---- the worker's side ----


class Door:
    """Checks the token of every call, in constant time.

    Who has none, or a wrong one, hears the same after half a second to two, whoever else calls
    meanwhile. The 11th time in a minute from one address the answer is RESOURCE_EXHAUSTED at
    once. What is remembered of addresses is bounded; the oldest is forgotten first.
    """

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else hashlib.sha256(token.encode()).digest()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self.refused = 0

    async def admit(self, context: grpc.aio.ServicerContext) -> None:
        """Returns for a call with the right token; ends any other."""
        if self._digest is None or self._is_right(context.invocation_metadata() or ()):
            return
        self.refused += 1
        if self._count(_address_of(context.peer()), time.monotonic()) > WRONG_A_MINUTE:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many wrong tokens; wait a minute"
            )
        await asyncio.sleep(random.uniform(*REFUSED_AFTER_S))  # noqa: S311  a delay, no secret
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)

    def _is_right(self, metadata: Any) -> bool:
        given = next((str(v) for k, v in metadata if k == "authorization"), "")
        digest = hashlib.sha256(given.removeprefix("Bearer ").encode()).digest()
        assert self._digest is not None
        return hmac.compare_digest(digest, self._digest)

    def _count(self, address: str, now_s: float) -> int:
        times = [t for t in self._wrong.pop(address, []) if now_s - t < 60][-WRONG_A_MINUTE:]
        times.append(now_s)
        self._wrong[address] = times
        if len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)
        return len(times)


def _address_of(peer: str) -> str:
    """ipv4:10.0.0.1:4711 without its port."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer


def server_credentials(cluster: ClusterConfig) -> grpc.ServerCredentials | None:
    """From `cluster.tls_cert` and `tls_key`; with `tls_ca` anchors need a certificate too."""
    if cluster.tls_cert is None or cluster.tls_key is None:
        return None
    try:
        pair = (Path(cluster.tls_key).read_bytes(), Path(cluster.tls_cert).read_bytes())
        roots = None if cluster.tls_ca is None else Path(cluster.tls_ca).read_bytes()
        return grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error


def make_certificate(directory: Path) -> tuple[Path, Path, str]:
    """Write a self-signed P-256 certificate and its key (mode 0600) into `directory`, for ten
    years; returns both paths and the fingerprint. Raises ConfigError if one is there already."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate_file, key_file = directory / "worker.pem", directory / "worker.key"
    for file in (certificate_file, key_file):
        if file.exists():
            raise ConfigError(f"{file} is there already; remove it first", found=str(file))
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as written:
        written.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    certificate_file.write_bytes(pem)
    return certificate_file, key_file, fingerprint_of(pem)
