# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA as a host and its clients see it: trusted by the host's programs, constrained, its keys elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CHAIN = "/etc/civitas/certificates/database/fullchain.pem"


def secrets(name: str) -> dict[str, str]:
    shown = subprocess.run(["ansible-vault", "view", str(DIRECTORY / name)], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = yaml.safe_load(shown)
    return found


def test_programs_of_the_host_trust_it_and_can_see_what_is_revoked(host):
    verify = f"openssl verify -x509_strict -purpose sslserver -verify_hostname database.internal -untrusted {CHAIN}"
    assert host.run(f"{verify} -crl_check_all -CRLfile /etc/civitas/crl.pem {CHAIN}").rc == 0
    assert host.run(f"{verify} -no-CAfile -no-CApath -no-CAstore {CHAIN}").rc != 0
    names = "import ssl; print([a['subject'][0][0][1] for a in ssl.create_default_context().get_ca_certs()])"
    assert "civitas.hosting internal CA" in host.check_output("python3 -c %s", names)


def test_the_issuing_ca_is_held_to_its_names(host):
    shown = host.check_output(f"sed '1,/END CERT/d' {CHAIN} | openssl x509 -noout -subject -ext nameConstraints,basicConstraints")
    assert "civitas.hosting internal CA issuing" in shown
    assert "X509v3 Name Constraints: critical" in shown and "DNS:internal" in shown and "pathlen:0" in shown
    assert "Excluded" not in shown


def test_the_keys_of_the_authorities_are_in_encrypted_files_of_the_controller_only(host):
    keys = [secrets("secrets.yml")["internal_ca_issuing_key"], secrets("ca-root.yml")["internal_ca_root_key"]]
    assert (DIRECTORY / "ca-root.yml").stat().st_mode & 0o077 == 0
    assert "internal_ca_root_key" not in secrets("secrets.yml")
    for key in keys:
        # The first line of a key in PEM is the same for all keys of its type.
        line = key.splitlines()[2]
        assert len(line) == 64
        assert host.run(f"grep -rqF '{line}' /etc /root /var/lib /var/log /tmp /home /usr/local").rc == 1
