# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what the issuer sends, once: python delivery.py DIRECTORY

A certificate for the site as authorities really send it: zipped, the leaf as DER, the chain in the wrong order with the root and a copy, in
Windows' line ends; a locked key; its passphrase in the secrets file. Beside it a delivery that must be refused.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.unit import pki

NAMES = ["records.example.org", "www.records.example.org"]
MAIL = "mail_password: letmein\nmail_webhook_url: https://chat.example.org/hooks/x\n"
PASSPHRASE = "a passphrase of this test"


def main() -> None:
    folder = Path(sys.argv[1])
    certificate = folder / "certificate"
    if certificate.exists():
        return
    certificate.mkdir(mode=0o700)
    made = pki.usual(subject=NAMES[0], names=NAMES, end=pki.NOW + 100 * pki.DAY)
    (folder / "root.pem").write_text(made.root.pem)
    (folder / "expected.pem").write_text(made.chain_pem)
    chain = "Your chain:\n" + made.root.pem + made.intermediate.pem + "again:\n" + made.intermediate.pem
    with zipfile.ZipFile(certificate / "delivery.zip", "w") as archive:
        archive.writestr("chain/ca-bundle.crt", chain.replace("\n", "\r\n"))
        archive.writestr("records.cer", made.leaf.der)
    write(certificate / "key.pem", made.leaf.key_pem(PASSPHRASE))
    # Without its intermediate, for another name, and with a key that is not its own.
    bad = pki.issue("other.example.org", made.intermediate, names=["other.example.org"])
    write(certificate / "bad.pem", bad.pem)
    write(folder / "secrets.yml", f"certificate_passphrase: {PASSPHRASE}\n{MAIL}")
    subprocess.run([Path(sys.executable).parent / "ansible-vault", "encrypt", folder / "secrets.yml"], check=True)


def write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


if __name__ == "__main__":
    main()
