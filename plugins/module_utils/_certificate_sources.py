# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers certificates on a host, from files and from servers, for the controller to judge. No private key leaves the host.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._certificate_wire import WireError, fetch

MAXIMUM_SIZE = 1024 * 1024
DEFAULT_PORTS = {"": 443, "smtp": 25, "postgres": 5432}

# All of a block up to the next mark, also when its end is missing: that is for the judge to see. Nothing else of a file is handed on.
_CERTIFICATE = re.compile(r"-+BEGIN (?:X509 |TRUSTED )?CERTIFICATE-+[^-]*(?:-+END [A-Z0-9 ]*-+)?")
_KEY = re.compile(r"BEGIN [A-Z0-9 ]*PRIVATE KEY")


def gather_file(path: str, key: t.Optional[str] = None) -> t.Dict[str, t.Any]:
    """The certificates in a file, and the public half of the private key in another one.

    Returns:
        V(certificates) (PEM), V(holds_key) (whether a private key is in the same file), V(public_key) (PEM, empty without C(key)),
        V(error) (why there is nothing, else empty).
    """
    found: t.Dict[str, t.Any] = {"certificates": "", "holds_key": False, "public_key": "", "error": ""}
    try:
        content = _content(path)
        text = content.decode("utf-8", "replace")
        found["holds_key"] = bool(_KEY.search(text))
        found["certificates"] = "\n".join(_CERTIFICATE.findall(text)) or _from_der(content)
        found["public_key"] = _public_half(key) if key else ""
    except OSError as error:
        return {**found, "error": f"{error.filename or path}: {error.strerror or error}"}
    except ValueError as error:
        return {**found, "error": str(error)}
    if not found["certificates"]:
        found["error"] = f"{path} holds no certificate"
    return found


def gather_endpoint(host: str, port: t.Optional[int], server_name: t.Optional[str], starttls: str, timeout: float) -> t.Dict[str, t.Any]:
    """What a server presents.

    Returns:
        V(certificates) (PEM, as sent), V(protocol), V(cipher), V(error) and V(error_kind) (of C(WireError), else empty).
    """
    try:
        wire = fetch(host, port or DEFAULT_PORTS.get(starttls, 443), server_name or "", starttls, timeout)
    except WireError as error:
        return {"certificates": "", "protocol": "", "cipher": "", "error": str(error), "error_kind": error.kind}
    return {"certificates": wire.chain_pem, "protocol": wire.protocol, "cipher": wire.cipher, "error": "", "error_kind": ""}


def _content(path: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is not a file")
    with open(path, "rb") as file:
        content = file.read(MAXIMUM_SIZE + 1)
    if len(content) > MAXIMUM_SIZE:
        raise ValueError(f"{path} is larger than {MAXIMUM_SIZE // 1024} KiB; a certificate has 2")
    return content


def _public_half(path: str) -> str:
    """OpenSSL computes it here, so that the key itself stays here."""
    _content(path)
    done = _openssl("pkey", "-in", os.path.abspath(path), "-pubout", "-passin", "pass:")
    if done.returncode != 0:
        with open(path, "rb") as file:
            encrypted = b"ENCRYPTED" in file.read(MAXIMUM_SIZE)
        raise ValueError(f"{path} {'has a passphrase, so no service can read it' if encrypted else 'holds no private key'}")
    return done.stdout.decode("ascii")


def _from_der(content: bytes) -> str:
    return _openssl("x509", "-inform", "DER", content=content).stdout.decode("ascii") if content[:1] == b"\x30" else ""


def _openssl(*arguments: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=False, cwd="/")
    except FileNotFoundError as error:
        raise ValueError("openssl is not installed here") from error
