# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what browsers with certificates of their own need: a CA, its revocation list, and certificates of users. And an RSA pair.

python authorities.py DIRECTORY
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(folder, file, subject, key, issuer, issuer_key, ca=False, hosts=()):
    builder = x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number(), NOW - DAY, NOW + 30 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    (folder / f"{file}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{file}.key").write_bytes(private)
    return certificate


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    authority, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issue(folder, "ca", "Test users", authority, "Test users", authority, ca=True)
    issue(folder, "officer", "Officer 7", ec.generate_private_key(ec.SECP256R1()), "Test users", authority)
    left = issue(folder, "left", "Officer 8", ec.generate_private_key(ec.SECP256R1()), "Test users", authority)
    # Of the same name, and signed by somebody else.
    issue(folder, "forged", "Officer 7", ec.generate_private_key(ec.SECP256R1()), "Test users", other)
    revoked = x509.RevokedCertificateBuilder(left.serial_number, NOW - DAY).build()
    crl = x509.CertificateRevocationListBuilder(name("Test users"), NOW - DAY, NOW + 30 * DAY).add_revoked_certificate(revoked)
    (folder / "crl.pem").write_bytes(crl.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key = rsa.generate_private_key(65537, 2048)
    issue(folder, "rsa", "records.test", key, "records.test", key, hosts=["records.test", "www.records.test"])


main(Path(sys.argv[1]))
