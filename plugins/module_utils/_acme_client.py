# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What certbot has, what it should get, and what its answers mean.

Private to the collection: no promise of stability.

Everything is read from files of the host; the ACME server is asked only for what is missing or differs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import subprocess
import tempfile
import time
import typing as t
import urllib.parse

from ansible_collections.civitas.hosting.plugins.module_utils import _acme

CERTBOT = "/usr/bin/certbot"
HOME = "/etc/letsencrypt"
LOG = "/var/log/letsencrypt/letsencrypt.log"
LEDGER = "/var/lib/civitas/acme.json"
BUSY = "Another instance of Certbot is already running"
CHALLENGES = {"http-01": "webroot", "dns-01": "dns-rfc2136"}


class ClientError(Exception):
    """The client could not do what it was asked for; nothing that is served was changed."""


class Certificate(t.NamedTuple):
    """One certificate as declared."""

    name: str
    hosts: t.Tuple[str, ...]
    challenge: str
    key_type: str


class Settings(t.NamedTuple):
    """What holds for all certificates of a host."""

    directory: str
    ca_file: str = ""
    email: str = ""
    eab_kid: str = ""
    eab_hmac_key: str = ""
    webroot: str = "/var/lib/civitas/acme"
    http_address: str = "127.0.0.1:80"
    dns_credentials: str = ""
    dns_propagation_seconds: int = 60


def wanted_parameters(certificate: Certificate, settings: Settings) -> t.Dict[str, str]:
    """The renewal parameters, by certbot's names, that a lineage must have."""
    parameters = {"server": settings.directory, "authenticator": CHALLENGES[certificate.challenge], "key_type": certificate.key_type}
    if certificate.challenge == "http-01":
        return {**parameters, "webroot_path": settings.webroot}
    return {
        **parameters,
        "dns_rfc2136_credentials": settings.dns_credentials,
        "dns_rfc2136_propagation_seconds": str(settings.dns_propagation_seconds),
    }


def parse_renewal(text: str) -> t.Dict[str, str]:
    """Parameters of a renewal configuration. Its sections have distinct keys, except the map of names to webroots, which is left out."""
    found: t.Dict[str, str] = {}
    skip = False
    for line in text.splitlines():
        if line.startswith("["):
            skip = line.startswith("[[")
        elif "=" in line and not skip and not line.startswith("#"):
            key, value = line.split("=", 1)
            found[key.strip()] = value.strip().rstrip(",")
    return found


def names_of(path: str) -> t.List[str]:
    """The DNS names of a certificate file, sorted; empty when there is none."""
    done = subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-ext", "subjectAltName"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return sorted(re.findall(r"DNS:([^,\s]+)", done.stdout))


def reason_to_obtain(certificate: Certificate, settings: Settings, now: float) -> str:
    """Why the ACME server must be asked for a certificate, empty when the one that is there will do. Reads files only."""
    chain = _acme.chain_file(certificate.name)
    parameters = parse_renewal(_read_renewal(certificate.name))
    validity = _acme.validity(chain)
    if not parameters or validity is None:
        return "there is none yet"
    if names_of(chain) != sorted({host.lower() for host in certificate.hosts}):
        return "its names differ"
    for key, value in wanted_parameters(certificate, settings).items():
        if parameters.get(key) != value:
            return f"its {key} is {parameters.get(key, 'not set')}, not {value}"
    return "it should have been renewed by now" if validity.overdue(now) else ""


def renewals(certificates: t.Sequence[Certificate], settings: Settings) -> t.Dict[str, bool]:
    """Which lineages have to begin (V(True)) or cease (V(False)) to be renewed by the timer.

    One that is not declared any more would fail sooner or later, and with it the unit that tells of failures. It is kept, as it may come
    back. Lineages that somebody else made are left alone.
    """
    declared = [certificate.name for certificate in certificates]
    found = {}
    folder = os.path.join(HOME, "renewal")
    for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        name, extension = os.path.splitext(file)
        parameters = parse_renewal(_read_renewal(name)) if extension == ".conf" else {}
        ours = parameters.get("webroot_path") == settings.webroot or (
            "dns_rfc2136_credentials" in parameters and parameters["dns_rfc2136_credentials"] == settings.dns_credentials
        )
        renewed = parameters.get("autorenew", "True") == "True"
        if parameters and renewed != (name in declared) and (ours or name in declared):
            found[name] = not renewed
    return found


def set_renewal(name: str, renewed: bool) -> None:
    """Let the timer renew a lineage, or not."""
    lines = [line for line in _read_renewal(name).splitlines() if line.partition("=")[0].strip() != "autorenew"]
    if not renewed:
        lines.insert(lines.index("[renewalparams]") + 1, "autorenew = False")
    path = os.path.join(HOME, "renewal", f"{name}.conf")
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
    os.replace(temporary, path)


class Client:
    """certbot, for one ACME directory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def obtain(self, certificate: Certificate) -> None:
        """Obtain or replace a lineage.

        Raises:
            ClientError: with what to do about it. The lineage from before, if any, stays.
        """
        if certificate.challenge == "http-01":
            self._probe(certificate)
        arguments = ["certonly", "--cert-name", certificate.name, "--key-type", certificate.key_type]
        # The caller installs what was obtained, and reports it.
        arguments += ["--force-renewal", "--renew-with-new-domains", "--no-directory-hooks"]
        arguments += ["--authenticator", CHALLENGES[certificate.challenge]]
        if certificate.challenge == "http-01":
            arguments += ["--webroot-path", self.settings.webroot]
        else:
            arguments += ["--dns-rfc2136-credentials", self.settings.dns_credentials]
            arguments += ["--dns-rfc2136-propagation-seconds", str(self.settings.dns_propagation_seconds)]
        for host in certificate.hosts:
            arguments += ["--domain", host]
        self._run(arguments, certificate)

    def ensure_account(self) -> bool:
        """Make an account on the server when there is none, and tell it a changed address; returns whether anything was done."""
        parsed = urllib.parse.urlparse(self.settings.directory)
        accounts = os.path.join(HOME, "accounts", (parsed.netloc + parsed.path).strip("/"))
        told = _read_ledger()
        email = ["--email", self.settings.email, "--no-eff-email"] if self.settings.email else ["--register-unsafely-without-email"]
        exists = os.path.isdir(accounts) and any(os.path.exists(os.path.join(accounts, item, "regr.json")) for item in os.listdir(accounts))
        if exists and told.get(self.settings.directory, self.settings.email) == self.settings.email:
            return False
        if exists:
            self._run(["update_account", *email])
        else:
            with self._binding() as binding:
                self._run(["register", "--agree-tos", *email, *binding])
        _write_ledger({**told, self.settings.directory: self.settings.email})
        return True

    @contextlib.contextmanager
    def _binding(self) -> t.Iterator[t.List[str]]:
        """Options for an external account binding: by file, as everybody on the host can read arguments."""
        if not self.settings.eab_kid:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", prefix="civitas-acme-", suffix=".ini", dir="/run", encoding="utf-8") as file:
            file.write(f"eab-kid = {self.settings.eab_kid}\neab-hmac-key = {self.settings.eab_hmac_key}\n")
            file.flush()
            yield ["--config", file.name]

    def _run(self, arguments: t.List[str], certificate: t.Optional[Certificate] = None) -> None:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        if self.settings.ca_file:
            environment["REQUESTS_CA_BUNDLE"] = self.settings.ca_file
        command = [CERTBOT, *arguments, "--server", self.settings.directory, "--non-interactive"]
        # The timer's run may be going on; it takes seconds.
        end = time.monotonic() + 120
        while True:
            before = os.path.getsize(LOG) if os.path.exists(LOG) else 0
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment,
                    timeout=900,
                    check=False,
                )
            except FileNotFoundError as error:
                raise ClientError(f"{CERTBOT} is not installed") from error
            except subprocess.TimeoutExpired as error:
                raise ClientError(f"{self.settings.directory} did not finish within 15 minutes; see {LOG}") from error
            if done.returncode == 0:
                return
            if BUSY not in done.stdout or time.monotonic() > end:
                raise ClientError(explain(done.stdout, _log_since(before), self.settings, certificate))
            time.sleep(2)

    def _probe(self, certificate: Certificate) -> None:
        """Ask this host's own web server as the ACME server will: a failed validation counts against the server's limits."""
        if not self.settings.http_address:
            return
        folder = os.path.join(self.settings.webroot, ".well-known", "acme-challenge")
        token = f"probe-{secrets.token_hex(8)}"
        path = os.path.join(folder, token)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(token)
        os.chmod(path, 0o644)
        try:
            for host in certificate.hosts:
                seen = _ask(self.settings.http_address, host, f"/.well-known/acme-challenge/{token}", token)
                if seen:
                    raise ClientError(
                        f"the web server of this host at {self.settings.http_address} does not answer "
                        f"http://{host}/.well-known/acme-challenge/ from {self.settings.webroot} ({seen}), so the ACME server was "
                        "not asked. With the role nginx, set nginx_acme_webroot and run it first"
                    )
        finally:
            os.unlink(path)


def _ask(address: str, host: str, path: str, expected: str) -> str:
    """What is wrong with the answer to a plain request, empty when it is the expected text."""
    name, _colon, port = address.rpartition(":")
    connection = http.client.HTTPConnection(name.strip("[]"), int(port), timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read(1000)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    if answer.status != 200:
        return f"it answered {answer.status}"
    return "" if body == expected.encode() else "it answered something else"


def _read_renewal(name: str) -> str:
    try:
        with open(os.path.join(HOME, "renewal", f"{name}.conf"), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _log_since(offset: int) -> str:
    try:
        with open(LOG, encoding="utf-8", errors="replace") as file:
            if os.path.getsize(LOG) >= offset:
                file.seek(offset)
            return file.read()
    except OSError:
        return ""


def _read_ledger() -> t.Dict[str, str]:
    try:
        with open(LEDGER, encoding="utf-8") as file:
            return dict(json.load(file)["email"])
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _write_ledger(email: t.Dict[str, str]) -> None:
    os.makedirs(os.path.dirname(LEDGER), mode=0o755, exist_ok=True)
    temporary = f"{LEDGER}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"email": email}, file, indent=2, sort_keys=True)
    os.replace(temporary, LEDGER)


# --- what certbot's answers mean

_FAILED_DOMAIN = re.compile(r"^\s*(?:Domain|Identifier): (\S+)\n\s*Type: +(\S+)\n\s*Detail: (.+?)\n *\n", re.M | re.S)

# By the type that the ACME server gives a failed validation.
_VALIDATION = {
    "http-01": {
        "connection": "port 80 of this host must answer under that name from the whole internet: see the firewall in front and both DNS "
        "records, A and AAAA",
        "dns": "its DNS record is missing or wrong: it needs an A record with this host's public address (AAAA only where IPv6 works)",
        "unauthorized": "another machine answered, or something in between: both DNS records, A and AAAA, must lead to this host",
    },
    "dns-01": {
        "dns": "its zone did not answer: see that it is delegated to the name servers that certificates_acme_dns_server feeds",
        "unauthorized": "the TXT record was not seen: raise certificates_acme_dns_propagation_seconds until all name servers of the zone "
        "have it, and see that certificates_acme_dns_server is the primary of the zone that the world asks",
    },
    "": {
        "caa": "a CAA record of the domain forbids this authority: add it there, or use the authority that is named there",
        "rejectedIdentifier": "this authority issues nothing for that name: correct the name",
    },
}

# By what the client prints or writes into its log; the first that is found.
_ANSWERS = (
    (r"error:rateLimited", "the ACME server refuses more requests for now (rate limit). Wait as long as it says; do not try again before"),
    (
        r"error:(?:externalAccountRequired|.*external account)|[Ee]xternal account binding",
        "the ACME server knows customers only: ask it for an external account binding and set certificates_acme_eab_kid and "
        "certificates_acme_eab_hmac_key",
    ),
    (
        r"error:accountDoesNotExist",
        "the ACME server does not know this host's account any more: move its folder in /etc/letsencrypt/accounts away and run again",
    ),
    (r"error:(?:invalidContact|unsupportedContact|invalidEmail)", "the ACME server refuses certificates_acme_email: write another address"),
    (r"error:rejectedIdentifier", "the ACME server issues nothing for one of the names: correct the name"),
    (r"error:caa", "a CAA record of the domain forbids this authority: add it there, or use the authority that is named there"),
    (r"error:serverInternal|HTTP status 5\d\d", "the ACME server is in trouble itself: try again later"),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the ACME server's own TLS certificate is not trusted here: for a private one set certificates_acme_ca_file",
    ),
    (
        r"Unable to determine base domain|Received response from server: \w+|Encountered error (?:adding|deleting|when making)|PeerBad",
        "the name server refused the update of the zone: see that certificates_acme_dns_server is its primary, that it allows the key "
        "certificates_acme_dns_key_name to update TXT records of _acme-challenge, and that secret and algorithm are the same on both sides",
    ),
    (
        r"ConnectionError|Max retries exceeded|NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|timed out",
        "the ACME server cannot be reached from this host: see certificates_acme_directory, DNS and the firewall (HTTPS outwards)",
    ),
    (BUSY, "another certbot works since two minutes: see 'ps -ef | grep certbot'"),
)


def explain(output: str, log: str, settings: Settings, certificate: t.Optional[Certificate]) -> str:
    """Turn certbot's words into what is wrong and what to do.

    Args:
        output: what certbot printed.
        log: what it wrote into its log meanwhile; holds the type of an ACME error, which the output does not.
    """
    challenge = certificate.challenge if certificate else ""
    failed = _FAILED_DOMAIN.findall(output + "\n\n")
    if failed:
        sentences = []
        for domain, kind, detail in failed:
            remedy = _VALIDATION.get(challenge, {}).get(kind) or _VALIDATION[""].get(kind) or f"see {LOG}"
            sentences.append(f"{domain} could not be validated by {challenge} ({kind}: {' '.join(detail.split())}): {remedy}")
        return "; ".join(sentences)
    said = _last_words(output)
    for pattern, remedy in _ANSWERS:
        if re.search(pattern, output) or re.search(pattern, log):
            return f"{remedy}. {settings.directory} or the client said: {said}"
    return f"{said}; see {LOG}"


def _last_words(output: str) -> str:
    """The lines that say something, without the client's advice on itself."""
    idle = re.compile(
        r"^(Saving debug log|Ask for help|See the logfile|An unexpected error occurred:$|Requesting a certificate|Renewing an)"
    )
    return " ".join(line.strip() for line in output.splitlines() if line.strip() and not idle.match(line.strip()))[:800]
