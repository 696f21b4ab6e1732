# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reasons a certificate is refused for: stable codes, and what to do about each. Runs on the controller, standard library only.

Private to the collection: no promise of stability, except for the codes, which people and scripts read.
"""

from __future__ import annotations

import typing as t


class Problem(t.NamedTuple):
    """One reason to refuse.

    Attributes:
        code: stable, one of C(CODES).
        message: what is wrong, one sentence.
        remedy: what to do or to ask the issuer for, one sentence.
        certificate: who is meant, such as C(leaf CN=www.example.org, serial 4f01); empty when it is no certificate.
    """

    code: str
    message: str
    remedy: str
    certificate: str


# What to do, by code. The order is the one in which problems are told: what hides others comes first.
CODES: t.Dict[str, str] = {
    # the files
    "empty_file": "Hand in the file again; it arrived without content.",
    "too_large": "Hand in only the certificate, its chain and its key; together they are a few kilobytes.",
    "unreadable": "Ask the issuer for the certificate as PEM (text that begins with -----BEGIN CERTIFICATE-----).",
    "truncated": "Hand in the file again; its end was lost in a copy.",
    "private_key_in_certificate_file": "Hand in the key as a file of its own; whoever got this file has the key, so order a new "
    "certificate with a new key if it went through mail or chat.",
    "passphrase_missing": "Put the key's passphrase into the secrets file, or hand in the key without one.",
    "wrong_passphrase": "Correct the passphrase in the secrets file; it does not open the key.",
    "no_certificate": "Hand in the certificate that the issuer sent; there is only something else in these files.",
    "leaf_not_found": "Ask the issuer for the server's own certificate; these files hold only certificates of authorities.",
    "several_leaves": "Hand in the files of one certificate only.",
    "key_missing": "Hand in the private key that was made together with the certificate request.",
    "key_mismatch": "Hand in the key that the certificate was requested with, or request a new certificate with this key.",
    # the path to a root
    "self_signed": "Order a certificate from an authority; this one is signed by nobody but itself.",
    "missing_intermediate": 'Ask the issuer for the missing certificate of its chain ("CA bundle"), and hand it in too.',
    "untrusted_root": "Ask the issuer which root its chain ends at; use a chain to a root that is trusted, or name that root as trusted.",
    "tampered": "Ask the issuer to send the file again; its content does not fit its signature.",
    "chain_too_long": "Ask the issuer for the chain of this certificate only; no authority needs so many links.",
    # what the certificates say of themselves
    "expired": "Ask the issuer for a renewed certificate or, when it is not the server's own, for its current chain.",
    "not_yet_valid": "Wait for its first day, or ask the issuer for one that is valid now; check the clock if the dates look right.",
    "revoked": "Order a new certificate with a new key, and ask the issuer why this one was revoked.",
    "crl_unusable": "Get the current revocation list from the issuer itself, and name that one; this one says nothing about the chain.",
    "name_mismatch": "Order a certificate that holds the name among its subject alternative names.",
    "common_name_only": "Order a certificate with the name among its subject alternative names; browsers ignore the common name.",
    "wildcard_too_shallow": "Order a certificate for the name itself; a wildcard stands for one label only.",
    "wildcard_for_apex": "Order a certificate that holds the domain itself beside the wildcard; a wildcard does not cover it.",
    "wrong_key_usage": "Order a certificate of the issuer's profile for web servers; its key usage does not allow this.",
    "wrong_purpose": "Order a certificate of the issuer's profile for web servers (TLS server authentication).",
    "intermediate_not_ca": "Ask the issuer for the right chain; one link in it may not sign certificates.",
    "path_length": "Ask the issuer for the right chain; an authority in it may not have another one below it.",
    "name_constraints": "Order from an authority that may issue for the name; one in this chain is restricted to others.",
    "weak_key": "Order with a stronger key: elliptic curve P-256 or P-384, or RSA with 2048 bits or more.",
    "weak_digest": "Order a certificate signed with SHA-256 or better, all of its chain too.",
    "not_strict": "Ask the issuer for a certificate that keeps to RFC 5280; strict programs refuse this one.",
    # what the environment and the product ask for
    "policy_internal_ca": "Use a certificate of an authority that browsers know: hand one in, or take one by ACME.",
    "policy_lets_encrypt": "Order a certificate that was issued for your organization.",
    "policy_wildcard": "Order a certificate that holds the names of this site only.",
    "policy_wildcard_needed": "Order a certificate for *.<your domain>, and for the domain itself too.",
    "policy_days_left": "Ask the issuer for a renewed certificate, and hand in that one.",
    "policy_lifetime": "Order a certificate for a shorter time.",
    "policy_key_type": "Make a new key, elliptic curve P-256 or P-384, or RSA with 2048 bits or more, and order a certificate for it.",
    "policy_vendor_domain": "Register a domain that your organization owns, and order a certificate for a name of it.",
}

# What each code means, for people who do not know certificates: the table of docs/certificates.md.
MEANINGS: t.Dict[str, str] = {
    "empty_file": "A file holds nothing.",
    "too_large": "A file is far larger than any certificate is.",
    "unreadable": "A file, or a part of it, is no certificate and no key in any usual form.",
    "truncated": "A file ends in the middle.",
    "private_key_in_certificate_file": "The private key lies in the file with the certificates, which many people and programs may read.",
    "passphrase_missing": "The key is locked with a passphrase, and none was given.",
    "wrong_passphrase": "The passphrase that was given does not open the key.",
    "no_certificate": "The files hold no certificate at all.",
    "leaf_not_found": "The server's own certificate is not among the files.",
    "several_leaves": "The files hold certificates of more than one server, and it cannot be told which is meant.",
    "key_missing": "The private key was not handed in.",
    "key_mismatch": "Key and certificate do not belong together.",
    "self_signed": "Nobody vouches for this certificate but itself, so no browser trusts it.",
    "missing_intermediate": "A link between the certificate and the authority that browsers know is missing.",
    "untrusted_root": "The chain is whole, but it ends at an authority that is not trusted.",
    "tampered": "A certificate was changed after it was signed, or damaged on its way.",
    "chain_too_long": "There are more links than any browser follows.",
    "expired": "A certificate of the chain has ended.",
    "not_yet_valid": "A certificate of the chain is valid from a later day only.",
    "revoked": "The issuer has declared the certificate void.",
    "crl_unusable": "A revocation list that was named has ended or is not the issuer's, so it cannot be told what is revoked.",
    "name_mismatch": "The certificate is for other names than this site's.",
    "common_name_only": "The name stands in an old field that browsers no longer read.",
    "wildcard_too_shallow": "A wildcard stands for one part of a name: *.example.org covers a.example.org, and not a.b.example.org.",
    "wildcard_for_apex": "*.example.org does not cover example.org itself.",
    "wrong_key_usage": "The certificate may not be used the way that a web server does.",
    "wrong_purpose": "The certificate was issued for something else, such as signing mail.",
    "intermediate_not_ca": "A link of the chain may not vouch for others.",
    "path_length": "A link of the chain vouches for more links than it may.",
    "name_constraints": "An authority of the chain may vouch for certain names only, and this site's are not among them.",
    "weak_key": "A key is so short that it can be broken.",
    "weak_digest": "A signature uses a method that can be forged.",
    "not_strict": "The certificate breaks a rule of the standard; some programs accept it, and others do not.",
    "policy_internal_ca": "The environment's own authority is unknown to people's browsers, which would warn.",
    "policy_lets_encrypt": "This environment wants a certificate that names your organization, and Let's Encrypt issues none.",
    "policy_wildcard": "This environment takes no wildcard, because one stolen key would impersonate every name.",
    "policy_wildcard_needed": "The product gives each user a name of their own, and single names cannot cover them.",
    "policy_days_left": "The certificate ends so soon that it is not worth installing.",
    "policy_lifetime": "The certificate lasts longer than browsers accept.",
    "policy_key_type": "The key is of a kind that not all browsers accept.",
    "policy_vendor_domain": "The name belongs to the product's vendor and not to you.",
}


def problem(code: str, message: str, certificate: str = "") -> Problem:
    """A problem with the remedy of its code.

    Raises:
        KeyError: no such code.
    """
    return Problem(code, message, CODES[code], certificate)


def as_dict(found: Problem) -> t.Dict[str, str]:
    """Plain data for results and filters."""
    return dict(found._asdict())


def in_order(found: t.Iterable[Problem]) -> t.List[Problem]:
    """Without duplicates, in the order of C(CODES); the order in which they were found is kept within a code."""
    codes = list(CODES)
    return sorted(dict.fromkeys(found), key=lambda one: codes.index(one.code))


def in_words(found: t.Iterable[Problem]) -> str:
    """All problems for a person to read, one a line."""
    return "\n".join(f"- {one.code}: {one.message} {one.remedy}" for one in found)
