# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of certificates cost, and what the TLS edge does. Part of `make bench` (tools/bench.py).

Every figure is the median of several short rounds, with the smallest and the largest. Rounds go through all candidates in turn, so that
whatever else the machine does falls on all of them alike. Client, edge and application share the machine's cores: a rate tells candidates
apart and does not say what a server can do; for that, there is the processor time that the server itself took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import bed, judges
from tools.bed import BedError, say
from tools.bench_rows import Row, Spread

PLAYBOOK = bed.ROOT / "tools" / "edge" / "playbook.yml"
# In the image of the judges.
HANDSHAKES = ("python3", "/usr/local/lib/civitas/handshakes.py")
KEYS = ("ecdsa", "rsa")
BODIES = {"small": 100, "large": 100_000}
CONNECTIONS = 16


# --- certificates


def deliveries() -> dict[str, tuple[list[tuple[str, bytes]], str, bool]]:
    """What is handed in: files, the trusted root, whether they are good. Made here, since no certificate is kept in the repository."""
    from tests.unit import pki

    def depth(number: int) -> tuple[pki.Pair, list[pki.Pair]]:
        root = issuer = pki.issue("Root", ca=True, end=pki.NOW + 3650 * pki.DAY)
        between = []
        for level in range(number):
            issuer = pki.issue(f"Intermediate {level}", issuer, ca=True, end=pki.NOW + 1800 * pki.DAY)
            between.append(issuer)
        return root, between

    def delivery(root: pki.Pair, between: Sequence[pki.Pair], key: Any = None) -> tuple[list[tuple[str, bytes]], str]:
        leaf = pki.issue("www.example.org", between[-1], key=key, names=["www.example.org"])
        chain = "".join(pair.pem for pair in (leaf, *reversed(between)))
        return [("chain.pem", chain.encode()), ("key.pem", leaf.key_pem().encode())], root.pem

    rsa_root = pki.issue("RSA Root", ca=True, key=pki.rsa_key(2048), end=pki.NOW + 3650 * pki.DAY)
    rsa_between = pki.issue("RSA Intermediate", rsa_root, ca=True, key=pki.rsa_key(2048, 1), end=pki.NOW + 1800 * pki.DAY)
    ecdsa, ecdsa_root = delivery(*depth(2))
    rsa, rsa_trust = delivery(rsa_root, [rsa_between], pki.rsa_key(2048, 2))
    deep, deep_root = delivery(*depth(50))
    # One name for all, and as much as a file may hold: whoever goes by names has that many candidates for the issuer.
    root, (real,) = depth(1)
    twins = "".join(pki.issue("Intermediate 0", root, ca=True).pem for _number in range(1400))
    decoys, decoys_root = delivery(root, [real])
    megabytes = (ecdsa[0][1] * (10_000_000 // len(ecdsa[0][1]) + 1))[:10_000_000]
    return {
        "3 certificates, ECDSA": (ecdsa, ecdsa_root, True),
        "3 certificates, RSA 2048": (rsa, rsa_trust, True),
        "1,400 issuers of one name": ([*decoys, ("more.pem", twins.encode())], decoys_root, True),
        "50 deep": (deep, deep_root, False),
        "10 MB": ([("chain.pem", megabytes), ecdsa[1]], ecdsa_root, False),
    }


def chains(seconds: float, rounds: int) -> list[Row]:
    """Milliseconds for a whole delivery as `validate` takes it in: reading, building the chain, verifying it, comparing the key."""
    # The link that makes this checkout the collection.
    sys.path.insert(0, str(bed.CACHE / "collections"))
    from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_delivery as certificates

    rows = []
    for name, (files, trust, good) in deliveries().items():
        taken: list[float] = []
        codes: set[str] = set()
        end = time.monotonic() + seconds * rounds
        while len(taken) < 3 or (time.monotonic() < end and len(taken) < 100 * rounds):
            started = time.perf_counter()
            intake = certificates.take_in(files, trust=trust, hostnames=["www.example.org"])
            taken.append(1000 * (time.perf_counter() - started))
            codes = {problem.code for problem in intake.problems}
        if bool(codes) == good:
            raise BedError(
                f"The delivery '{name}' should be {'accepted' if good else 'refused'}; found: {', '.join(sorted(codes)) or 'nothing'}"
            )
        rows.append(
            Row(name, "ms", Spread.of(taken), f"{len(taken)} runs, " + ("refused: " + ", ".join(sorted(codes)) if codes else "accepted"))
        )
    return rows


# --- servers


@dataclass(frozen=True)
class Servers:
    """Running hosts: the role's edge, the distribution's nginx, and the client."""

    edge: str
    distribution: str
    client: str
    addresses: dict[str, str]

    def ask(self, *command: str) -> dict[str, Any]:
        """The JSON on the last line of what a load generator prints."""
        output = bed.docker("exec", self.client, *command, timeout=300)
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        return answer


def _address(host: str) -> str:
    return bed.docker("inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{bed.NETWORK}").IPAddress}}}}', host)


def _material(folder: Path) -> None:
    """A root, a leaf of each key type, and what the application serves."""
    from tests.unit import pki

    root = pki.issue("Bench Root", ca=True)
    between = pki.issue("Bench Intermediate", root, ca=True, path_length=0)
    for key_type, key in (("ecdsa", pki.ec_key()), ("rsa", pki.rsa_key(2048))):
        leaf = pki.issue(f"{key_type}.test", between, key=key, names=[f"{key_type}.test"])
        (folder / key_type).mkdir()
        (folder / key_type / "fullchain.pem").write_text(leaf.pem + between.pem)
        (folder / key_type / "key.pem").write_text(leaf.key_pem())
    (folder / "ca.pem").write_text(root.pem)
    for name, size in BODIES.items():
        (folder / name).write_bytes(os.urandom(size))


@contextmanager
def servers(prefix: str = "civitas-bench") -> Iterator[Servers]:
    """Fresh hosts, removed at the end."""
    bed.ensure_engine()
    image = judges.ensure_image()
    names = {part: f"{prefix}-{part}-{bed.CHECKOUT}" for part in ("edge", "distribution", "client")}
    bed.remove_host(*names.values())
    try:
        with tempfile.TemporaryDirectory() as folder:
            _material(Path(folder))
            for part in ("edge", "distribution"):
                say(f"bench: starting {names[part]}")
                bed.start_host(names[part], "debian13")
            addresses = {part: _address(names[part]) for part in ("edge", "distribution")}
            inventory = {
                part: {"hosts": {names[part]: {}}, "vars": {"ansible_connection": "community.docker.docker", "bench_directory": folder}}
                for part in addresses
            }
            (Path(folder) / "inventory.json").write_text(json.dumps(inventory))
            _configure(Path(folder) / "inventory.json")
            client = ["--name", names["client"], "--network", bed.NETWORK, "--label", f"{bed.LABEL}={bed.CHECKOUT}"]
            client += [f"--add-host={key}.test:{addresses['edge']}" for key in KEYS]
            bed.docker("run", "--detach", "--init", *client, image, "sleep", "infinity")
            bed.docker("cp", f"{folder}/ca.pem", f"{names['client']}:/ca.pem")
            yield Servers(names["edge"], names["distribution"], names["client"], addresses)
    finally:
        bed.remove_host(*names.values())


def _configure(inventory: Path) -> None:
    say("bench: configuring the edge and the distribution's nginx")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(bed.ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(bed.CACHE / "collections")),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(PLAYBOOK), "-i", str(inventory)]
    done = subprocess.run(
        command, cwd=bed.ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise BedError(
            "\n".join(["The servers of the bench could not be configured; the last lines were:", *done.stdout.splitlines()[-40:]])
        )


def _server_seconds(host: str) -> float:
    """Processor time that the nginx processes of a host have taken so far."""
    script = "for pid in $(pidof nginx); do cat /proc/$pid/schedstat; done"
    return sum(int(line.split()[0]) for line in bed.docker("exec", host, "sh", "-c", script).splitlines()) / 1e9


# --- handshakes


def handshakes(running: Servers, seconds: float, rounds: int) -> list[Row]:
    """TLS 1.3 handshakes a second, full and resumed, with ECDSA P-256 and RSA 2048, of the edge and of the distribution's nginx."""
    hosts = {"edge": running.edge, "distribution": running.distribution}
    candidates = [(part, key, mode) for mode in ("full", "resumed") for part in hosts for key in KEYS]
    rates: dict[tuple[str, str, str], list[float]] = {candidate: [] for candidate in candidates}
    costs: dict[tuple[str, str, str], list[float]] = {candidate: [] for candidate in candidates}
    versions = set()
    for number in range(rounds):
        say(f"bench: handshakes, round {number + 1} of {rounds}")
        for candidate in candidates:
            part, key, mode = candidate
            before = _server_seconds(hosts[part])
            seen = running.ask(*HANDSHAKES, running.addresses[part], f"{key}.test", "/ca.pem", str(seconds), mode, "2")
            after = _server_seconds(hosts[part])
            if seen["resumed"] != (seen["handshakes"] if mode == "resumed" else 0):
                raise BedError(f"{part}, {key}: {seen['resumed']} of {seen['handshakes']} handshakes were resumed in the mode {mode}.")
            rates[candidate].append(seen["handshakes"] / seen["seconds"])
            # The handshakes before the clock starts, one a process and the verified one, are few and counted too.
            costs[candidate].append(1e6 * (after - before) / (seen["handshakes"] + 3))
            versions.add(seen["version"])
    rows = []
    for candidate in candidates:
        part, key, mode = candidate
        cost = Spread.of(costs[candidate])
        note = f"{cost.median:,.0f} µs of the server's processor each"
        rows.append(Row(f"{part}, {key}, {mode}", "handshakes/s", Spread.of(rates[candidate]), note, {"server_microseconds": cost.median}))
    if versions != {"TLSv1.3"}:
        raise BedError(f"The candidates do not speak the same protocol: {', '.join(sorted(versions))}")
    return rows


# --- requests


def requests(running: Servers, seconds: float, rounds: int) -> list[Row]:
    """Requests a second over kept connections, through the edge and directly to the application."""
    bases = {"through the edge": "https://ecdsa.test", "direct": f"http://{running.addresses['edge']}:8888"}
    candidates = [(body, way) for body in BODIES for way in bases]
    rates: dict[tuple[str, str], list[float]] = {candidate: [] for candidate in candidates}
    late: dict[tuple[str, str], list[float]] = {candidate: [] for candidate in candidates}
    # wrk knows whole seconds only.
    length = f"{max(1, round(seconds))}s"
    for number in range(rounds):
        say(f"bench: requests, round {number + 1} of {rounds}")
        for candidate in candidates:
            body, way = candidate
            seen = running.ask(
                "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", length,
                "--script", "/usr/local/share/civitas/report.lua", f"{bases[way]}/{body}",
            )  # fmt: skip
            if seen["failed"] or seen["bytes"] < seen["requests"] * BODIES[body]:
                raise BedError(f"{way}, {body}: {seen['failed']} of {seen['requests']} requests failed, {seen['bytes']} bytes came.")
            rates[candidate].append(1e6 * seen["requests"] / seen["microseconds"])
            late[candidate].append(seen["p99"] / 1000)
    rows = []
    for body, way in candidates:
        p99 = Spread.of(late[body, way]).median
        note = f"99 of 100 within {p99:.1f} ms"
        rows.append(Row(f"{body} answer ({BODIES[body]:,} bytes), {way}", "requests/s", Spread.of(rates[body, way]), note, {"p99_ms": p99}))
    return rows


# --- all


PARTS: dict[str, str] = {
    "chains": "certificates handed in: milliseconds until they are accepted or refused",
    "handshakes": f"TLS 1.3 handshakes; two clients, {os.cpu_count()} cores for all",
    "requests": f"requests over {CONNECTIONS} kept connections; client, edge and application share {os.cpu_count()} cores",
}
_OVER_THE_NETWORK: dict[str, Callable[[Servers, float, int], list[Row]]] = {"handshakes": handshakes, "requests": requests}


def measure(parts: Sequence[str], seconds: float, rounds: int, prefix: str = "civitas-bench") -> dict[str, list[Row]]:
    """The asked parts of PARTS. Raises BedError."""
    found: dict[str, list[Row]] = {}
    if "chains" in parts:
        say("bench: certificates")
        found["chains"] = chains(seconds, rounds)
    if wanted := [part for part in _OVER_THE_NETWORK if part in parts]:
        with servers(prefix) as running:
            for part in wanted:
                found[part] = _OVER_THE_NETWORK[part](running, seconds, rounds)
    return found
