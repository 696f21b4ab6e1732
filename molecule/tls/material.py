# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what the scenario needs beside the internal CA, once: python material.py DIRECTORY

An RSA pair for a site that has one beside its ECDSA certificate, with the root of its issuer; an authority of client certificates with its
revocation list; an error page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from tests.unit import pki

NAMES = ["records.test", "www.records.test"]


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = pki.issue("RSA Root", ca=True, key=pki.rsa_key(2048))
    intermediate = pki.issue("RSA Intermediate", root, ca=True, path_length=0, key=pki.rsa_key(2048, 1))
    leaf = pki.issue(NAMES[0], intermediate, key=pki.rsa_key(2048, 2), names=NAMES)
    (folder / "root.pem").write_text(root.pem)
    (folder / "fullchain.pem").write_text(leaf.pem + intermediate.pem)
    (folder / "key.pem").write_text(leaf.key_pem())
    clients = pki.issue("Clients", ca=True)
    (folder / "clients.pem").write_text(clients.pem)
    (folder / "clients-crl.pem").write_bytes(pki.revocation_list(clients).public_bytes(Encoding.PEM))
    (folder / "error.html").write_text("<!doctype html>\n<title>Not now</title>\n")
    (folder / "done").touch()


if __name__ == "__main__":
    main()
