# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate of the internal CA that keeps the place for another authority's gives way to that one, and to nothing else."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca as internal_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca import Ca, Policy, Root
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.plugins.test_internal_certificates import Site

NOW = datetime.datetime.now(datetime.UTC)
POLICY = Policy("test CA", ["test"], datetime.timedelta(days=90), datetime.timedelta(days=30))


def issuing(root: Root) -> Ca:
    return internal_ca.renew_list(internal_ca.renew(Ca(), root, POLICY, [], NOW), POLICY, NOW)


def chain(ca: Ca) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    return internal_ca.issue(ca, request, ["records.test"], POLICY, NOW)


@pytest.fixture(scope="module", name="root")
def _root() -> Root:
    return internal_ca.create_root("test CA", NOW)


def test_a_certificate_of_another_authority_is_foreign(root):
    # Of the same name even, as after the secrets were lost and made anew.
    assert internal_ca.is_foreign(chain(issuing(internal_ca.create_root("test CA", NOW))), issuing(root))


def test_own_ones_are_not_even_of_an_earlier_issuing_ca(root):
    earlier, present = issuing(root), issuing(root)
    assert earlier.certificate != present.certificate
    assert not internal_ca.is_foreign(chain(present), present)
    assert not internal_ca.is_foreign(chain(earlier), present)


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_nothing_and_rubbish_are_replaced(root, text):
    assert not internal_ca.is_foreign(text, issuing(root))


def test_the_action_leaves_the_better_certificate_alone(root, tmp_path: Path) -> None:
    site = Site(tmp_path)
    certificate = {**site.options()["certificates"][0], "placeholder": True}
    assert site.run(certificates=[certificate])["issued"] == {"edge": "there is none"}
    assert site.run(certificates=[certificate])["issued"] == {}
    chain_file = site.store / "edge" / "fullchain.pem"
    chain_file.write_text(chain(issuing(root)))
    assert site.run(certificates=[certificate])["issued"] == {}
    assert site.run(certificates=[{**certificate, "placeholder": False}])["issued"] == {"edge": "it is not from the issuing CA"}
