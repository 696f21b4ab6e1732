# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that a server really presents, read with C(openssl s_client): the standard library shows the leaf only.

Standard library only and without imports from the collection, because a program on the hosts uses it too.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import subprocess
import typing as t

STARTTLS = ("", "smtp", "postgres")

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
# How OpenSSL names what the other side said in TLS: "tlsv1 alert internal error", "ssl/tls alert handshake failure".
_ALERT = re.compile(r"(ssl/tls|sslv3|tlsv1|tlsv13) (alert|unrecognized|unsupported|bad|certificate|unknown) ")


class Wire(t.NamedTuple):
    """What a server presented.

    Attributes:
        chain_pem: its certificates in the order sent, PEM.
        protocol: such as V(TLSv1.3); empty when the server broke off after sending its certificates.
        cipher: such as V(TLS_AES_256_GCM_SHA384); empty likewise.
        verify_error: why OpenSSL does not accept it for the name asked for, empty when it does.
    """

    chain_pem: str
    protocol: str
    cipher: str
    verify_error: str


class WireError(Exception):
    """No certificate was received.

    Attributes:
        kind: V(unreachable) (no connection), V(timeout) (connected, but no answer in time), V(no_tls) (an answer, but no TLS),
            V(unusable) (the request is wrong, or C(openssl) is missing).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def fetch(host: str, port: int, server_name: str = "", starttls: str = "", timeout: float = 10, ca_file: t.Optional[str] = None) -> Wire:
    """Connect once and read the certificates; every certificate is taken, also one that is not trusted.

    Args:
        host: name or address to connect to.
        port: TCP port.
        server_name: name asked for (SNI) and verified, the host's unless given; an address is verified but cannot be asked for.
        starttls: protocol in which the server is asked for TLS first: one of C(STARTTLS).
        timeout: in seconds, for all of it.
        ca_file: trust store that V(verify_error) is told by; the system's unless given.

    Raises:
        WireError: no certificate was received; the message names the server.
    """
    name = server_name or host
    where = f"{name} on {_show(host, port)}" if name != host else _show(host, port)
    if starttls not in STARTTLS:
        raise WireError("unusable", f"{where}: starttls {starttls!r} is unknown; write smtp, postgres or leave it out")
    if not re.fullmatch(r"[\w.:%-]+", host) or not re.fullmatch(r"[\w.:*-]+", name) or not 0 < port < 65536:
        raise WireError("unusable", f"{where} is no name or address with a port")
    # Old protocols and weak certificates shall be seen and told, and not end the handshake without a reason; clients demand level 2 today.
    command = ["openssl", "s_client", "-connect", _show(host, port), "-showcerts", "-cipher", "DEFAULT:@SECLEVEL=0", "-auth_level", "2"]
    if _is_address(name):
        command += ["-noservername", "-verify_ip", name]
    else:
        command += ["-servername", name, "-verify_hostname", name]
    command += ["-starttls", starttls] if starttls else []
    if ca_file:
        _check_trust(ca_file, where)
        command += ["-CAfile", os.path.abspath(ca_file)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd="/", env=_environment()
        )
    except FileNotFoundError as error:
        raise WireError("unusable", f"{where}: openssl is not installed here") from error
    except subprocess.TimeoutExpired as error:
        _try_to_connect(host, port, where, min(timeout, 3))
        raise WireError("timeout", f"{where}: connected, but the TLS answer timed out after {timeout:g} s") from error
    shown = done.stdout.decode("ascii", "replace")
    if not _BLOCK.search(shown):
        _try_to_connect(host, port, where, min(timeout, 3))
        reason = _reason(done.stderr)
        if "unrecognized name" in reason:
            how = f"refuses the TLS connection, because it has no site of the name {name}"
        elif _ALERT.match(reason):
            how = "refuses the TLS connection"
        else:
            how = f"refuses TLS, asked for it in the way of {starttls}" if starttls else "answers, but not with TLS"
        raise WireError("no_tls", f"{where}: the server {how} ({reason})")
    protocol = re.search(r"^ *Protocol *: (TLS\S+|SSL\S+)", shown, re.MULTILINE)
    session = re.search(r"^(?:New|Reused), (TLS\S+|SSL\S+), Cipher is (\S+)", shown, re.MULTILINE)
    verified = re.search(r"^Verification(: OK| error: (.*))", shown, re.MULTILINE)
    return Wire(
        "".join(certificates(shown)),
        protocol[1] if protocol else session[1] if session else "",
        session[2] if session else "",
        (verified[2] or "") if verified else "the handshake broke off before the certificate was verified",
    )


def certificates(text: str) -> t.List[str]:
    """The PEM blocks of all certificates in a text, each with its end of line."""
    return [f"{block[0].rstrip()}\n" for block in _BLOCK.finditer(text)]


def fingerprints(pem: str) -> t.List[str]:
    """SHA-256 of every certificate in a text, in lower hexadecimal digits without colons; the leaf's is the first.

    Raises:
        ValueError: a block is not base64.
    """
    try:
        return [hashlib.sha256(base64.b64decode("".join(block[1].split()), validate=True)).hexdigest() for block in _BLOCK.finditer(pem)]
    except binascii.Error as error:
        raise ValueError(f"a certificate is damaged: {error}") from error


def not_after(pem: str) -> float:
    """When the first certificate in a text ends, in seconds since 1970.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    first = certificates(pem)[:1]
    command = ["openssl", "x509", "-noout", "-enddate"]
    done = subprocess.run(command, input="".join(first).encode("ascii"), capture_output=True, check=False, cwd="/", env=_environment())
    found = re.search(rb"notAfter=(.+)", done.stdout)
    if not found:
        raise ValueError("there is no certificate" if not first else f"the certificate cannot be read: {_reason(done.stderr)}")
    return float(ssl.cert_time_to_seconds(found[1].decode("ascii").strip()))


def _check_trust(ca_file: str, where: str) -> None:
    """A trust store that cannot be used looks like a broken server otherwise."""
    try:
        with open(ca_file, encoding="ascii", errors="replace") as file:
            if certificates(file.read()):
                return
    except OSError as error:
        raise WireError("unusable", f"{where}: the trust store {ca_file}: {error.strerror}") from error
    raise WireError("unusable", f"{where}: the trust store {ca_file} holds no certificate")


def _environment() -> t.Dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _try_to_connect(host: str, port: int, where: str, timeout: float) -> None:
    """Say in plain words why there is no connection. Only after a failure: a bare connection leaves a complaint in the server's log."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except socket.gaierror as error:
        raise WireError("unreachable", f"{where}: the name {host} is not known ({error.strerror})") from error
    except socket.timeout as error:
        raise WireError("unreachable", f"{where}: no connection within {timeout:g} s") from error
    except OSError as error:
        raise WireError("unreachable", f"{where}: {error.strerror or error}") from error


def _reason(stderr: bytes) -> str:
    """What OpenSSL says, without numbers of its errors and files."""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.split(":")[5] for line in lines if line.count(":") >= 5 and ":error:" in line and line.split(":")[5]]
    return "".join(c if c.isprintable() else "?" for c in (errors or lines or ["no reason given"])[-1])[:200]
