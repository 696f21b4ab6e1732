# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads certificates and keys from the files that issuers and people send. Runs on the controller.

PEM in any wrapping that mail, Windows and copying give it, DER, PKCS#7, PKCS#12, and archives of them. Nothing is judged here but whether
all that a file claims to hold was read: a file that lost a part is refused and never used without it.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import typing as t
import warnings
import zipfile
import zlib

from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, in_order, problem

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

# The trust stores of browsers, three times the size of any delivery, have 300 KB.
MAXIMUM_SIZE = 1024 * 1024
MAXIMUM_MEMBERS = 100
# A TLS library refuses larger keys, and trying them takes minutes.
MAXIMUM_KEY_SIZE = 32 * 1024
# Windows makes PKCS#12 with 2 000 rounds, careful programs with 600 000; a file may ask for more than a day's worth.
MAXIMUM_ROUNDS = 2_000_000
# After so many broken parts of a file its next ones say nothing new.
MAXIMUM_BROKEN_PARTS = 5

# What programs put into archives unasked.
_CLUTTER = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)

# Word processors and mail programs make typographic dashes of hyphens, or lose one.
_DASH = "[-\u2010-\u2015\u2212]"
_MARK = re.compile(f"{_DASH}{{2,10}} ?(BEGIN|END) ([A-Z0-9][A-Z0-9 ]{{0,40}}?) ?(?={_DASH}{{2}}){_DASH}{{2,5}}")
_DAMAGED_MARK = re.compile(f"{_DASH} ?BEGIN (?:[A-Z0-9]+ ){{0,3}}(?:CERTIFICATE|KEY|PKCS7|CMS|CRL)")

# What follows a BEGIN and comes before an END in sentences about them ("copy all from -----BEGIN ...----- to -----END ...-----"): a word in
# small letters. The base64 of what is read here always begins with M.
_PROSE_AFTER = re.compile(r"""["'`\u201d\u2019)]*[,;]?\s+["'`\u201c\u201e(]*[a-z\u00df-\u00ff]{2,20}(?=[\s,.;:"'`)]|$)""")
_PROSE_BEFORE = re.compile(r"""(?:^|[\s("'])[a-z\u00df-\u00ff]{2,20}[,:]?[ \t]+["'`\u201c\u201e(]*$""")

# What lies beside certificates in archives; some of it is an archive itself.
_DOCUMENT = re.compile(r"\.(html?|pdf|rtf|doc[xm]?|xls[xm]?|ppt[xm]?|od[tsp])$", re.IGNORECASE)
_TEXT = re.compile(r"\.(txt|md|log|nfo|xml|url)$", re.IGNORECASE)

_UNKNOWN = "is none of the forms in which certificates and keys are sent"

_PKCS7_SIGNED = bytes.fromhex("06092a864886f70d010702")
_PKCS7_DATA = bytes.fromhex("06092a864886f70d010701")


class Bag(t.NamedTuple):
    """What was found in the files, without duplicates, in the order found.

    Attributes:
        certificates: all certificates.
        keys: all private keys, decrypted.
        crls: all certificate revocation lists.
        problems: what could not be read or must not be used.
        others: what else was recognized, such as C(a.csr holds a certificate request); no problem beside what was looked for.
    """

    certificates: t.List[x509.Certificate]
    keys: t.List[t.Any]
    crls: t.List[x509.CertificateRevocationList]
    problems: t.List[Problem]
    others: t.List[str]


def read(files: t.Sequence[t.Tuple[str, bytes]], passphrase: t.Optional[str] = None, maximum_size: int = MAXIMUM_SIZE) -> Bag:
    """Everything in the files.

    Args:
        files: pairs of a name (for messages) and the content.
        passphrase: opens encrypted keys and PKCS#12 files; it is never part of a message.
        maximum_size: in bytes, of each file and of all that an archive holds.
    """
    reader = _Reader(passphrase, maximum_size)
    with warnings.catch_warnings():
        # Oddities that the library tolerates are for the judge, not for the terminal.
        warnings.simplefilter("ignore")
        for name, content in files:
            reader.file(printable(name), content)
    return Bag(list(reader.certificates.values()), list(reader.keys.values()), reader.crls, in_order(reader.problems), reader.others)


def printable(text: str) -> str:
    """Without characters that move a terminal's cursor; cut to a length for messages."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def as_pem(certificates: t.Iterable[x509.Certificate]) -> str:
    """The certificates as PEM, nothing between them."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in certificates)


def key_as_pem(key: t.Any) -> str:
    """The private key as PEM, PKCS#8 without a passphrase, which is what all programs read."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return t.cast(bytes, pem).decode("ascii")


def read_public_key(pem: str) -> t.Any:
    """A public key from PEM.

    Raises:
        ValueError: it is none.
    """
    try:
        return serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(f"this kind of key is not supported: {error}") from error


def public_bytes(key: t.Any) -> bytes:
    """A public key in the form that keys are compared in."""
    return t.cast(bytes, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


class _Unreadable(Exception):
    """A part of a file that cannot be used: the code and what is wrong with it."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Reader:
    """Collects from file after file."""

    def __init__(self, passphrase: t.Optional[str], maximum_size: int) -> None:
        # Older programs encrypt with the bytes of Windows' character set.
        texts = [] if not passphrase else [passphrase.encode(charset) for charset in ("utf-8", "cp1252") if _fits(passphrase, charset)]
        self.passphrases = list(dict.fromkeys(texts))
        self.maximum_size = maximum_size
        self.certificates: t.Dict[bytes, x509.Certificate] = {}
        self.keys: t.Dict[bytes, t.Any] = {}
        self.crls: t.List[x509.CertificateRevocationList] = []
        self.problems: t.List[Problem] = []
        self.others: t.List[str] = []
        # What the file at hand has shown so far.
        self.kinds: t.Set[str] = set()

    def file(self, name: str, content: bytes) -> None:
        self.kinds = set()
        if len(content) > self.maximum_size:
            self._refuse("too_large", f"{name} has {_size(len(content))}, more than the {_size(self.maximum_size)} that are read.")
        elif not content.strip(b"\0 \t\r\n"):
            self._refuse("empty_file", f"{name} is empty.")
        elif content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            self._archive(name, content)
        else:
            self._plain(name, content)

    def _refuse(self, code: str, message: str) -> None:
        self.problems.append(problem(code, message))

    def _archive(self, name: str, content: bytes) -> None:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [one for one in archive.infolist() if not one.is_dir() and not _CLUTTER.search(one.filename)]
                if len(members) > MAXIMUM_MEMBERS:
                    self._refuse(
                        "too_large", f"{name} is an archive of {len(members)} files, more than the {MAXIMUM_MEMBERS} that are read."
                    )
                    return
                left = self.maximum_size
                for member in members:
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        # The others may ask for gigabytes of memory.
                        raise NotImplementedError
                    # The sizes that an archive states are claims: read one byte more than may be there.
                    with archive.open(member) as stream:
                        inner = stream.read(left + 1)
                    left -= len(inner)
                    if left < 0:
                        self._refuse("too_large", f"{name} unpacks to more than the {_size(self.maximum_size)} that are read.")
                        return
                    self._member(f"{name}: {printable(member.filename)}", inner)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self._refuse("truncated", f"{name} is a damaged archive ({error}).")
            return
        except (RuntimeError, NotImplementedError):
            self._refuse("unreadable", f"{name} is an archive that is encrypted or packed in a rare way; hand in the files in it.")
            return
        if not members:
            self._refuse("empty_file", f"{name} is an archive without files.")

    def _member(self, name: str, content: bytes) -> None:
        """A file of an archive; issuers put letters and pictures beside the certificates."""
        self.kinds = set()
        if _DOCUMENT.search(name):
            self.others.append(f"{name} is a document, in which no certificate is looked for")
        elif not content.strip(b"\0 \t\r\n"):
            if _TEXT.search(name):
                self.others.append(f"{name} is empty")
            else:
                self._refuse("empty_file", f"{name} is empty.")
        elif content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            self._refuse("unreadable", f"{name} is an archive inside an archive; hand in the files in it.")
        elif _is_der(content) or _marks(_text(content)) or _has_damaged_mark(_text(content)):
            self._plain(name, content)
        else:
            self.others.append(f"{name} holds neither a certificate nor a key")

    def _plain(self, name: str, content: bytes) -> None:
        try:
            if _is_der(content):
                self._der(name, content, "")
            else:
                self._pem(name, _text(content))
        except _Unreadable as error:
            self._refuse(error.code, f"{name} {error}.")
        if {"certificate", "key"} <= self.kinds:
            self._refuse("private_key_in_certificate_file", f"{name} holds a private key beside the certificate.")

    def _pem(self, name: str, text: str) -> None:
        if _has_damaged_mark(text):
            raise _Unreadable("truncated", "has a damaged BEGIN line")
        marks = _marks(text)
        if not marks:
            bare = _bare_base64(text)
            if not bare:
                raise _Unreadable("no_certificate", "holds neither a certificate nor a key")
            self._der(name, bare, "")
            return
        number = broken = 0
        opened: t.Optional[t.Match[str]] = None
        for mark in marks:
            if mark[1] == "BEGIN":
                if opened:
                    raise _Unreadable("truncated", f"ends within its part {number} ({opened[2]}): the END line is missing")
                opened = mark
                number += 1
                continue
            if not opened or opened[2] != mark[2]:
                raise _Unreadable("truncated", f"has an END line ({mark[2]}) without its BEGIN line")
            try:
                self._block(name, mark[2], text[opened.end() : mark.start()])
            except _Unreadable as error:
                self._refuse(error.code, f"{name}: part {number} ({mark[2]}) {error}.")
                broken += 1
                if broken == MAXIMUM_BROKEN_PARTS:
                    return
            opened = None
        if opened:
            raise _Unreadable("truncated", f"ends within its part {number} ({opened[2]}): the END line is missing")

    def _block(self, name: str, label: str, body: str) -> None:
        if label in ("EC PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "DSA PARAMETERS"):
            return
        if label.endswith("PRIVATE KEY"):
            self.kinds.add("key")
        if label == "OPENSSH PRIVATE KEY":
            raise _Unreadable("unreadable", "is a key for SSH, not for a certificate")
        headers, der = _decoded(body)
        if "Proc-Type" in headers:
            # The cipher stands in the headers, so this one goes to the library as the text it came as, without its wrapping.
            lines = "\n".join(f"{key}: {value}" for key, value in headers.items())
            encoded = base64.encodebytes(der).decode("ascii")
            pem = f"-----BEGIN {label}-----\n{lines}\n\n{encoded}-----END {label}-----\n"
            self._key(lambda passphrase: serialization.load_pem_private_key(pem.encode(), passphrase, unsafe_skip_rsa_key_validation=True))
            return
        self._der(name, der, label)

    def _der(self, name: str, der: bytes, label: str) -> None:
        extent = _extent(der)
        if not extent:
            raise _Unreadable("unreadable", _UNKNOWN)
        if extent > len(der):
            raise _Unreadable("truncated", f"has lost a part: {len(der)} of {extent} bytes are there")
        inner = der[_header(der) :][:64]
        if inner.startswith(b"\x02\x01\x03\x30") and _PKCS7_DATA in inner:
            self._pkcs12(der)
        elif inner.startswith(_PKCS7_SIGNED):
            self._pkcs7(der)
        else:
            if extent < len(der):
                if label != "TRUSTED CERTIFICATE":
                    raise _Unreadable("unreadable", f"has {len(der) - extent} bytes after its end")
                # OpenSSL appends whom it trusts; the certificate itself is what others understand.
                der = der[:extent]
            self._single(name, der, label)

    def _single(self, name: str, der: bytes, label: str) -> None:
        """A certificate, a revocation list, a key or a request; labels lie, so the structure decides."""
        why = ""
        try:
            self._certificate(x509.load_der_x509_certificate(der))
            return
        except (ValueError, x509.InvalidVersion) as error:
            why = str(error)
        try:
            self.crls.append(x509.load_der_x509_crl(der))
            return
        except (ValueError, x509.InvalidVersion):
            pass
        try:
            x509.load_der_x509_csr(der)
            self.others.append(f"{name} holds a certificate request (CSR): the issuer makes the certificate from it")
            return
        except (ValueError, x509.InvalidVersion):
            pass
        try:
            serialization.load_der_public_key(der)
            self.others.append(f"{name} holds a public key")
            return
        except (ValueError, UnsupportedAlgorithm):
            pass
        if label.endswith("CERTIFICATE"):
            raise _Unreadable("unreadable", f"is damaged: no certificate can be read from it ({_first_line(why)})")
        if len(der) > MAXIMUM_KEY_SIZE:
            raise _Unreadable("unreadable", _UNKNOWN)
        _refuse_slow(der)
        # Whether key and certificate work together is tried when they are taken in; the library's own test takes seconds for large keys.
        self._key(lambda passphrase: serialization.load_der_private_key(der, passphrase, unsafe_skip_rsa_key_validation=True))

    def _certificate(self, certificate: x509.Certificate) -> None:
        self.kinds.add("certificate")
        try:
            # The library reads these only when asked; after this nobody else has to expect an error.
            certificate.public_key()
            for part in ("subject", "issuer", "extensions", "not_valid_before_utc", "not_valid_after_utc", "signature_algorithm_oid"):
                getattr(certificate, part)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise _Unreadable("unreadable", f"is a certificate that is against the rules ({_first_line(str(error))})") from error
        self.certificates.setdefault(certificate.public_bytes(serialization.Encoding.DER), certificate)

    def _pkcs7(self, der: bytes) -> None:
        try:
            certificates = pkcs7.load_der_pkcs7_certificates(der)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise _Unreadable("unreadable", f"is a damaged PKCS#7 file ({_first_line(str(error))})") from error
        if not certificates:
            raise _Unreadable("no_certificate", "is a PKCS#7 file without certificates")
        for one in certificates:
            self._certificate(one)

    def _pkcs12(self, der: bytes) -> None:
        _refuse_slow(der)
        store = self._open(lambda passphrase: pkcs12.load_pkcs12(der, passphrase), "PKCS#12 file", [*self.passphrases, None])
        certificates = [*([store.cert] if store.cert else []), *store.additional_certs]
        for one in certificates:
            self._certificate(one.certificate)
        if store.key:
            # This form is made to hold both under one passphrase, so the key is not counted as one in a certificate file.
            self._add_key(store.key)
        if not certificates and not store.key:
            raise _Unreadable("no_certificate", "is a PKCS#12 file without certificates")

    def _key(self, load: t.Callable[[t.Optional[bytes]], t.Any]) -> None:
        try:
            key = load(None)
        except TypeError:
            self.kinds.add("key")
            key = self._open(load, "key", self.passphrases)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _Unreadable(
                "unreadable", f"is none of the forms in which certificates and keys are sent ({_first_line(str(error))})"
            ) from error
        self.kinds.add("key")
        self._add_key(key)

    def _add_key(self, key: t.Any) -> None:
        self.keys.setdefault(public_bytes(key.public_key()), key)

    def _open(self, load: t.Callable[[t.Optional[bytes]], t.Any], what: str, passphrases: t.Sequence[t.Optional[bytes]]) -> t.Any:
        """The library says the same for a wrong passphrase and for damage."""
        for passphrase in passphrases:
            try:
                return load(passphrase)
            except UnsupportedAlgorithm as error:
                raise _Unreadable(
                    "unreadable", f"is a {what} encrypted in a way that is not supported ({_first_line(str(error))})"
                ) from error
            except (ValueError, TypeError):
                continue
        if not self.passphrases:
            raise _Unreadable("passphrase_missing", f"is a {what} with a passphrase, and none was given")
        raise _Unreadable("wrong_passphrase", f"is a {what} that the given passphrase does not open")


def _fits(text: str, charset: str) -> bool:
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def _text(content: bytes) -> str:
    """The text of a file, whatever wrote it. What matters in it is ASCII; the rest only has to do no harm."""
    for mark, charset in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            return content[len(mark) :].decode(charset, "replace")
    if content[1:2] == b"\0" or content[:1] == b"\0":
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _marks(text: str) -> t.List[t.Match[str]]:
    """The BEGIN and END lines, without those that a sentence only mentions."""
    found: t.List[t.Match[str]] = []
    for mark in _MARK.finditer(text):
        if mark[1] == "BEGIN":
            if _PROSE_AFTER.match(text, mark.end()):
                continue
        elif (not found or found[-1][1] == "END") and _PROSE_BEFORE.search(text[max(0, mark.start() - 40) : mark.start()]):
            continue
        found.append(mark)
    return found


def _has_damaged_mark(text: str) -> bool:
    begins = sum(1 for one in _MARK.finditer(text) if one[1] == "BEGIN")
    return sum(1 for _one in _DAMAGED_MARK.finditer(text)) > begins


def _is_der(content: bytes) -> bool:
    """Whether it is a binary structure, whole or not, and no text that begins with the digit 0, which is the same byte."""
    return _extent(content) > 2 and (content[1] >= 0x80 or min(content[:64]) < 9)


def _decoded(body: str) -> t.Tuple[t.Dict[str, str], bytes]:
    """Headers and bytes of a PEM block, freed of quotation marks of mail, of spaces and of escapes of other formats."""
    headers: t.Dict[str, str] = {}
    encoded = []
    for raw in body.replace("\\r", "").replace("\\n", "\n").replace("=3D", "=").splitlines():
        line = raw.lstrip("> |\t\ufeff").strip()
        key, colon, value = line.partition(":")
        if colon:
            headers[key.strip()] = value.strip()
        else:
            encoded.append("".join(line.split()))
    try:
        return headers, base64.b64decode("".join(encoded), validate=True)
    except (binascii.Error, ValueError) as error:
        if "padding" in str(error) or "multiple of 4" in str(error):
            raise _Unreadable("truncated", "has lost a part: its length is none that the encoding makes") from error
        raise _Unreadable("unreadable", "has characters in it that do not belong there") from error


def _bare_base64(text: str) -> bytes:
    """The bytes when the text is nothing but base64 of a structure whose BEGIN and END lines were left out."""
    if not text.lstrip().startswith("MI"):
        return b""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _header(der: bytes) -> int:
    """The length of the outermost tag and length; 0 when there is none."""
    if len(der) < 2 or der[0] != 0x30:
        return 0
    more = der[1] & 0x7F if der[1] > 0x80 else 0
    return 2 + more if more <= 4 else 0


def _extent(der: bytes) -> int:
    """How long the outermost sequence says it is, in bytes with its header; 0 when it is none. Without a stated length: all there is."""
    header = _header(der)
    if not header:
        return 0
    if der[1] == 0x80:
        return len(der)
    return header + (der[1] if header == 2 else int.from_bytes(der[2:header], "big"))


def _refuse_slow(der: bytes) -> None:
    """Refuse a structure that asks for too many rounds of key derivation: in all of them that is the number that follows the salt."""
    pending, steps = [memoryview(der)], 0
    while pending:
        content = pending.pop()
        salted = False
        while len(content) > 1:
            tag, length, header = content[0], content[1], 2
            if length == 0x80:
                length = len(content) - 2
            elif length > 0x80:
                header += length & 0x7F
                length = int.from_bytes(content[2:header], "big")
            value, content = content[header : header + length], content[header + length :]
            steps += 1
            if steps > 10000 or (tag == 0x02 and salted and int.from_bytes(value[:16], "big") > MAXIMUM_ROUNDS):
                raise _Unreadable("unreadable", "is encrypted in a way that takes too long to open")
            salted = tag == 0x04
            # Constructed ones, and the octets in which PKCS#12 wraps the next layer.
            if tag & 0x20 or (tag == 0x04 and bytes(value[:1]) == b"\x30"):
                pending.append(value)


def _first_line(text: str) -> str:
    return printable(text.strip().splitlines()[0]) if text.strip() else "no reason given"


def _size(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB" if count >= 1024 * 1024 else f"{count / 1024:.0f} KiB"
