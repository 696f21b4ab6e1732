# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long certificates still live, measured where people meet them: on the wire. Each threshold and each fault is told once.

Private to the collection: no promise of stability. Standard library only: the host's own program runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import Endpoint, Spec, leaf_fingerprint
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Store, StoreError

DAY = 86400.0
# The sources that renew their certificates by themselves.
RENEWING = ("acme", "internal")


class Seen(t.NamedTuple):
    """One certificate at one place.

    Attributes:
        name: the certificate.
        place: the endpoint, or C(file) for a certificate without endpoints.
        fingerprint: SHA-256 of the leaf; empty when there was no answer.
        ends: when the first certificate of the chain ends, in seconds since 1970; 0 when there was no answer.
        life: how many days the leaf lives in all.
        fault: why it is not what it should be, in a sentence without the place; empty when all is well.
        trouble: V(unreachable), V(mismatch) or V(missing), by which a fault is recognized the next time; empty.
        renews: whether it is renewed without people.
    """

    name: str
    place: str
    fingerprint: str
    ends: float
    life: float
    fault: str
    trouble: str
    renews: bool = False

    @property
    def key(self) -> str:
        return f"{self.name} {self.place}"

    def days_left(self, now: float) -> float:
        return (self.ends - now) / DAY

    def due(self, days: float) -> bool:
        """Whether a threshold is worth telling: what renews by itself does so when a third of the life is left, and needs no warning."""
        return not self.renews or days < self.life / 3

    def crossed(self, thresholds: t.Iterable[int], now: float) -> t.Optional[int]:
        """The smallest threshold that is worth telling and is reached."""
        return min((day for day in thresholds if self.days_left(now) <= day and self.due(day)), default=None)

    def is_critical(self, critical: float, now: float) -> bool:
        return bool(self.ends) and self.days_left(now) <= (min(critical, self.life / 3) if self.renews else critical)


class News(t.NamedTuple):
    """Something to tell: V(severity) as in syslog (3 error, 4 warning, 6 information) and one line."""

    severity: int
    text: str


def measure(store: Store, specs: t.Iterable[Spec], patience: float = 10, attempts: int = 2) -> t.List[Seen]:
    """Look at every endpoint of every certificate, and at the file of one that has none."""
    seen: t.List[Seen] = []
    for spec in specs:
        first = len(seen)
        installed = store.chain(spec.name, store.current(spec.name))
        if not installed:
            seen.append(Seen(spec.name, "file", "", 0.0, 0.0, "is not installed", "missing"))
        elif not spec.endpoints:
            seen.append(Seen(spec.name, "file", leaf_fingerprint(installed), *_life(installed), "", ""))
        else:
            seen.extend(_look(spec.name, endpoint, leaf_fingerprint(installed), patience, attempts) for endpoint in spec.endpoints)
        seen[first:] = [item._replace(renews=spec.source in RENEWING) for item in seen[first:]]
    return seen


def measure_settled(store: Store, specs: t.Sequence[Spec], patience: float = 10, attempts: int = 2) -> t.List[Seen]:
    """As C(measure), but who is in the middle of a change is measured again after it. Nobody else waits for a measurement."""
    seen = measure(store, specs, patience, attempts)
    doubtful = {item.key for item in seen if item.trouble == "mismatch"}
    narrowed = [spec._replace(endpoints=[one for one in spec.endpoints if f"{spec.name} {one}" in doubtful]) for spec in specs]
    again: t.Dict[str, Seen] = {}
    if doubtful:
        # Whoever has the lock for so long is in trouble, too: what was seen stands.
        with contextlib.suppress(StoreError), store.lock(300):
            again = {item.key: item for item in measure(store, [spec for spec in narrowed if spec.endpoints], patience, attempts)}
    return [again.get(item.key, item) for item in seen]


def _look(name: str, endpoint: Endpoint, installed: str, patience: float, attempts: int) -> Seen:
    seen = Seen(name, str(endpoint), "", 0.0, 0.0, "", "")
    for attempt in range(attempts):
        if attempt:
            # A service that is being restarted or reloaded.
            time.sleep(2)
        try:
            chain = wire.fetch(endpoint.host, endpoint.port, endpoint.server_name, endpoint.starttls, patience).chain_pem
            fingerprint, (ends, life) = leaf_fingerprint(chain), _life(chain)
        except (wire.WireError, ValueError) as error:
            seen = seen._replace(fault=f"presents no certificate: {error}", trouble="unreachable")
            continue
        seen = seen._replace(fingerprint=fingerprint, ends=ends, life=life)
        if fingerprint == installed:
            return seen._replace(fault="", trouble="")
        fault = f"presents another certificate (SHA-256 {fingerprint[:16]}...) than the installed one ({installed[:16]}...)"
        seen = seen._replace(fault=fault, trouble="mismatch")
    return seen


def _life(chain: str) -> t.Tuple[float, float]:
    """When the first of a chain's certificates ends (a leaf is worth nothing after its issuer), and the days that the leaf lives."""
    spans = [_validity(pem) for pem in wire.certificates(chain)]
    return min(end for _begin, end in spans), (spans[0][1] - spans[0][0]) / DAY


def _validity(pem: str) -> t.Tuple[float, float]:
    done = subprocess.run(["openssl", "x509", "-noout", "-dates"], input=pem, capture_output=True, text=True, check=False)
    dates = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    try:
        return ssl.cert_time_to_seconds(dates["notBefore"]), ssl.cert_time_to_seconds(dates["notAfter"])
    except KeyError:
        raise ValueError(f"the certificate cannot be read: {done.stderr.strip()[-200:]}") from None


def news(
    seen: t.Iterable[Seen], told: t.Mapping[str, t.Any], thresholds: t.Sequence[int], critical: float, now: float
) -> t.Tuple[t.List[News], t.Dict[str, t.Any]]:
    """What is to be told now, and what has been told after that.

    Args:
        told: the second result of the time before; by C(Seen.key).
        thresholds: days left at which it is told, as far as they are due; crossing several at once is one message.
        critical: days left from which on it is an error and no warning.
    """
    messages = []
    after = {}
    for item in seen:
        before = told.get(item.key) or {}
        threshold = before.get("threshold") if before.get("fingerprint") == item.fingerprint else None
        if item.fault:
            # The days are told again when they can be seen again only if they are others.
            after[item.key] = {**before, "trouble": item.trouble}
            if before.get("trouble") != item.trouble:
                messages.append(News(3, f"the certificate {item.name}: {item.place} {item.fault}"))
        else:
            if before.get("trouble"):
                messages.append(News(6, f"the certificate {item.name}: {item.place} is well again"))
            after[item.key] = {"fingerprint": item.fingerprint, "threshold": threshold}
        if not item.ends:
            continue
        crossed = item.crossed(thresholds, now)
        if crossed is not None and (threshold is None or crossed < threshold):
            messages.append(
                News(3 if item.is_critical(critical, now) else 4, f"the certificate {item.name}: {item.place} {_how_long(item, now)}")
            )
        after[item.key].update(fingerprint=item.fingerprint, threshold=crossed)
    return messages, after


def _how_long(item: Seen, now: float) -> str:
    left = item.days_left(now)
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(item.ends))
    if left < 0:
        return f"presents a certificate that ended on {day}; renew it now"
    return f"presents a certificate that ends in {left:.1f} days, on {day}; renew it"


def problems(seen: t.Iterable[Seen], critical: float, now: float) -> t.List[str]:
    """What is wrong now, whether it was told or not."""
    found = []
    for item in seen:
        if item.fault:
            found.append(f"{item.name}: {item.place} {item.fault}")
        elif item.is_critical(critical, now):
            found.append(f"{item.name}: {item.place} {_how_long(item, now)}")
    return found


def metrics(seen: t.Sequence[Seen], thresholds: t.Sequence[int], now: float) -> str:
    """The text format of Prometheus."""

    def threshold(item: Seen) -> t.Optional[float]:
        crossed = item.crossed(thresholds, now)
        return (float("inf") if crossed is None else crossed) if item.ends else None

    tables: t.List[t.Tuple[str, str, t.Callable[[Seen], t.Optional[float]]]] = [
        ("civitas_certificate_not_after_timestamp_seconds", "End of the presented chain.", lambda item: item.ends or None),
        ("civitas_certificate_threshold_days", "Smallest number of days left to tell that is reached; +Inf for none.", threshold),
        ("civitas_certificate_served", "1 when the installed certificate is what is presented.", lambda item: float(not item.fault)),
    ]
    lines = []
    for metric, title, value in tables:
        lines += [f"# HELP {metric} {title}", f"# TYPE {metric} gauge"]
        for item in seen:
            number = value(item)
            if number is not None:
                lines.append(f'{metric}{{name="{_label(item.name)}",place="{_label(item.place)}"}} {_written(number)}')
    metric = "civitas_certificate_watch_timestamp_seconds"
    lines += [f"# HELP {metric} When this was measured.", f"# TYPE {metric} gauge", f"{metric} {now:.0f}"]
    return "\n".join(lines) + "\n"


def _written(number: float) -> str:
    return "+Inf" if number == float("inf") else f"{number:.0f}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read_state(path: str) -> t.Dict[str, t.Any]:
    """What an earlier watch wrote; empty when there is none or it cannot be read, so that it is told once more rather than never."""
    try:
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("told"), dict) else {}


def state(seen: t.Sequence[Seen], told: t.Mapping[str, t.Any], found: t.Sequence[str], now: float) -> str:
    """What is kept of a watch: for the next one, and for people."""
    results = [
        {
            "name": item.name,
            "place": item.place,
            "fingerprint": item.fingerprint,
            "days_left": round(item.days_left(now), 2) if item.ends else None,
            "fault": item.fault,
        }
        for item in seen
    ]
    document = {"time": int(now), "ok": not found, "problems": list(found), "results": results, "told": told}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def write(path: str, text: str) -> None:
    """Replace a file that everybody may read."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
