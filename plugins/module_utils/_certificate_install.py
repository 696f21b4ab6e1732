# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate brought into use: swapped, its users told, and measured on the wire; what cannot be proven is taken back by itself.

Private to the collection: no promise of stability. Standard library only: the modules and the host's own program run the same steps.

What happens wherever a run is cut off: before the swap nothing is served that was not before. After it, the note C(pending) of the store
stays, and whoever comes next (a module, the program, the watch) tells the users and measures again, or goes back.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Owner, Store, StoreError

WATCH_UNIT = "civitas-certificates-watch.service"


class InstallError(Exception):
    """The new pair is not in use; the text says why, and what is in use instead."""


class Endpoint(t.NamedTuple):
    """Where a certificate is seen: connect to C(host) and C(port), ask for C(server_name), with C(starttls) V(smtp) or V(postgres)."""

    host: str
    port: int
    server_name: str
    starttls: str

    def __str__(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return where if self.server_name == self.host else f"{where} as {self.server_name}"


class Container(t.NamedTuple):
    """A container that reads the pair again when it gets C(signal)."""

    name: str
    signal: str


class Spec(t.NamedTuple):
    """One certificate and its users."""

    name: str
    hosts: t.Sequence[str] = ()
    owner: Owner = Owner("root", "root")
    reload_units: t.Sequence[str] = ()
    verify: t.Sequence[str] = ()
    run: t.Sequence[str] = ()
    containers: t.Sequence[Container] = ()
    endpoints: t.Sequence[Endpoint] = ()
    keep: int = 3
    source: str = ""

    @classmethod
    def of(cls, item: t.Mapping[str, t.Any]) -> Spec:
        """From a declaration; keys that are missing or V(None) have their default."""
        return cls(
            name=item["name"],
            hosts=tuple(item.get("hosts") or ()),
            owner=Owner(item.get("owner") or "root", item.get("group") or "root"),
            reload_units=tuple(item.get("reload_units") or ()),
            verify=tuple(item.get("verify") or ()),
            run=tuple(item.get("run") or ()),
            containers=tuple(Container(c["name"], c.get("signal") or "HUP") for c in item.get("containers") or ()),
            endpoints=tuple(
                Endpoint(e["host"], int(e["port"]), e.get("server_name") or e["host"], e.get("starttls") or "")
                for e in item.get("endpoints") or ()
            ),
            keep=int(item.get("keep") or 3),
            source=item.get("source") or "",
        )


class Outcome(t.NamedTuple):
    """What was done: V(changed), the generation in use, and notes for people, such as what could not be measured."""

    changed: bool
    generation: str
    notes: t.List[str]


class Installer:
    """Brings pairs of one certificate into use. Its methods hold the store's lock while they work.

    Args:
        patience: seconds that servers get to show a new pair; nginx replaces its workers after a reload has returned.
        lock_patience: seconds to wait for another installer.
    """

    def __init__(self, store: Store, spec: Spec, patience: float = 20, lock_patience: float = 120) -> None:
        self.store = store
        self.spec = spec
        self.name = spec.name
        self.patience = patience
        self.lock_patience = lock_patience

    def install(self, chain: str, key: str, ca_file: str = "") -> Outcome:
        """Bring a pair into use; does nothing when it is in use already.

        Args:
            chain: certificates in PEM, the leaf first.
            key: its private key in PEM.
            ca_file: the roots to judge it by; the host's own when empty.

        Raises:
            InstallError, StoreError, OSError: the pair from before is in use (see the text).
        """
        with self.store.lock(self.lock_patience):
            notes = self._heal_first(ca_file)
            found = self.store.inspect(self.name, self.spec.owner)
            if found["certificate"] == chain and self.store.key_is(self.name, key):
                if not found["permissions_ok"]:
                    self.store.repair_permissions(self.name, self.spec.owner)
                    notes.append(f"{self.name}: the key was given back to its owner")
                return Outcome(bool(notes), self.store.current(self.name), notes)
            self.spec.owner.ids()

            def stage(generation: str) -> None:
                self.store.stage(self.name, generation, self.spec.owner, chain, key)
                self.store.judge(self.name, generation, self.spec.hosts, ca_file)

            return self._change("", stage, notes)

    def roll_back(self, generation: str = "", ca_file: t.Optional[str] = None) -> Outcome:
        """Bring an earlier pair back into use, the one in use before unless C(generation) is given; judged and proven like a new one.

        Does nothing without C(generation) right after a roll back, so that it can be run again for the sake of other hosts.

        Args:
            ca_file: the roots to judge it by; the host's own when empty; V(None) judges it without its issuers.

        Raises:
            InstallError, StoreError, OSError: as C(install).
        """
        with self.store.lock(self.lock_patience):
            found = self.store.current(self.name)
            notes = self._heal_first(ca_file)
            current, kept = self.store.current(self.name), self.store.generations(self.name)
            if not current:
                raise InstallError(f"{self.name}: there is no such certificate on this host")
            if not generation and current != found:
                # An unproven pair was in use; that it was taken back is what was asked for.
                return Outcome(True, current, notes)
            history = self.store.history(self.name)
            if not generation and history.rolled_back:
                told = f"generation {current} is in use already since a rollback; name another one with --generation"
                return Outcome(bool(notes), current, [*notes, f"{self.name}: {told}"])
            target = generation or history.before
            if target == current:
                return Outcome(bool(notes), current, [*notes, f"generation {current} is in use already"])
            if target not in kept:
                raise InstallError(
                    f"{self.name}: there is no {'generation ' + target if target else 'earlier pair'}; kept are {', '.join(kept)}"
                )
            try:
                self._judge(target, ca_file)
            except StoreError as error:
                raise InstallError(f"{self.name}: the pair of generation {target} would not be accepted by anybody: {error}") from error
            return self._change(target, lambda generation: None, notes)

    def heal(self, ca_file: t.Optional[str] = None) -> t.List[str]:
        """End what an earlier run could not; returns what was done, empty when there was nothing.

        Args:
            ca_file: as C(roll_back).

        Raises:
            InstallError: the pair from before is in use.
        """
        if not self.store.pending(self.name):
            return []
        with self.store.lock(self.lock_patience):
            return self._heal(ca_file)

    # Steps

    def _judge(self, generation: str, ca_file: t.Optional[str]) -> None:
        """Judge a pair that was judged before: whether it is whole, and still good. Its names may be others by now."""
        if ca_file is None:
            self.store.judge_alone(self.name, generation)
        else:
            self.store.judge(self.name, generation, [], ca_file)

    def _heal(self, ca_file: t.Optional[str]) -> t.List[str]:
        change = self.store.pending(self.name)
        if not change:
            return []
        current = self.store.current(self.name)
        if not change.previous or (current == change.previous and self.store.has_way_back(self.name)):
            # The first pair, which nobody used yet, or cut off before the swap.
            self.store.settle(self.name, self.spec.keep)
            return [f"{self.name}: an earlier run was cut off before it changed anything that is served"]
        if current == change.new:
            before = self._measure()
            try:
                self._judge(current, ca_file)
            except (StoreError, OSError, subprocess.SubprocessError) as error:
                raise InstallError(
                    f"{self.name}: an earlier run was cut off after the swap, and its pair was taken back: {error}."
                    f" {self._return(change.previous, before)}"
                ) from error
            if self.spec.endpoints and not before:
                where = ", ".join(str(endpoint) for endpoint in self.spec.endpoints)
                return [f"{self.name}: an earlier run was cut off after the swap; its pair is not proven yet, as nobody answers at {where}"]
            notes = self._prove(before)
            return [f"{self.name}: an earlier run was cut off after the swap; its pair is proven now", *notes]
        try:
            self._tell()
            self._wait_for(
                current, [endpoint for endpoint in self._measure() if self.store.covers(self.name, current, endpoint.server_name)]
            )
        except InstallError as error:
            raise InstallError(f"{self.name}: the pair from before is linked again after a failed change, but {error}") from error
        self.store.settle(self.name, self.spec.keep)
        return [f"{self.name}: an earlier run was cut off while it went back; the users have been told now"]

    def _heal_first(self, ca_file: t.Optional[str]) -> t.List[str]:
        try:
            notes = self._heal(ca_file)
            unproven = self.store.pending(self.name)
            if unproven:
                # The way back of the next change must lead to a pair that was proven.
                raise InstallError(f"{notes[0]}. {self._return(unproven.previous, {})}")
            return notes
        except InstallError as error:
            if self.store.pending(self.name):
                raise
            # It has gone back: nothing is in the way of another change.
            return [str(error)]

    def _change(self, generation: str, stage: t.Callable[[str], None], notes: t.List[str]) -> Outcome:
        """Prepare the way back, swap, tell the users, prove it, or go back. C(stage) puts a new generation in place and judges it."""
        try:
            change = self.store.arm(self.name, generation)
            stage(change.new)
            before = self._measure()
            self.store.swap(self.name, change.new)
        except (StoreError, OSError):
            pending = self.store.pending(self.name)
            if not pending or self.store.current(self.name) == pending.previous:
                self.store.settle(self.name, self.spec.keep)
            raise
        if change.previous:
            return Outcome(True, change.new, notes + self._prove(before))
        self.store.settle(self.name, self.spec.keep)
        return Outcome(True, change.new, [*notes, f"{self.name}: the first pair; nobody was told, as nobody uses it yet"])

    def _prove(self, before: t.Mapping[Endpoint, str]) -> t.List[str]:
        """Tell the users of the pair in use and measure it. C(before): what the endpoints presented, without those that did not answer."""
        change = self.store.pending(self.name)
        if change is None:
            raise StoreError(f"{self.name}: no change was begun")
        notes = []
        judged = []
        for endpoint in self.spec.endpoints:
            if endpoint not in before:
                notes.append(f"{self.name}: {endpoint} did not answer before the change, so it was not measured")
            elif not self.store.covers(self.name, change.previous, endpoint.server_name):
                notes.append(f"{self.name}: the pair before was not for {endpoint.server_name}, so {endpoint} was not measured")
            else:
                judged.append(endpoint)
        try:
            notes += self._tell()
            self._wait_for(change.new, judged)
            if not (change.fresh or judged) and self._should_be_seen():
                self._wait_for_any(change.new)
        except (InstallError, StoreError, OSError, subprocess.SubprocessError) as error:
            raise InstallError(f"{self.name}: the new pair was taken back: {error}. {self._return(change.previous, before)}") from error
        self.store.settle(self.name, self.spec.keep)
        self._look_again()
        return notes

    def _return(self, previous: str, before: t.Mapping[Endpoint, str]) -> str:
        """Bring the pair from before back; returns a sentence about it."""
        fingerprint = leaf_fingerprint(self.store.chain(self.name, previous))
        served = [endpoint for endpoint, presented in before.items() if presented == fingerprint]
        try:
            self.store.go_back(self.name)
            self._tell()
            self._wait_for(previous, served)
        except (InstallError, StoreError, OSError, subprocess.SubprocessError) as error:
            return f"Going back did not end, the next run or the watch tries again: {error}"
        self.store.settle(self.name, self.spec.keep)
        where = ", ".join(str(endpoint) for endpoint in served)
        return f"The pair from before is in use again{', seen on ' + where if where else ''}"

    def _tell(self) -> t.List[str]:
        """Let the users judge the pair and load it; returns who was left out."""
        running = [unit for unit in self.spec.reload_units if _run(["systemctl", "is-active", "--quiet", unit]).returncode == 0]
        notes = [f"{self.name}: {unit} does not run, so it was not told" for unit in self.spec.reload_units if unit not in running]
        # A service that does not run may not even be configured yet.
        for command in self.spec.verify if running or not self.spec.reload_units else ():
            _must(shlex.split(command), command)
        for unit in running:
            _must(["systemctl", "reload", unit], f"systemctl reload {unit}")
        for container in self.spec.containers:
            state = _run(["docker", "inspect", "--format", "{{.State.Running}}", container.name])
            if state.returncode == 0 and state.stdout.strip() == "true":
                _must(["docker", "kill", "--signal", container.signal, container.name], f"the signal for the container {container.name}")
            else:
                notes.append(f"{self.name}: the container {container.name} does not run, so it was not told")
        for command in self.spec.run:
            _must(shlex.split(command), command)
        return notes

    def _measure(self) -> t.Dict[Endpoint, str]:
        """The fingerprint that each endpoint presents now; those without an answer are missing."""
        presented = {}
        for endpoint in self.spec.endpoints:
            # Who does not answer is not judged later, so one lost connection must not count as no answer.
            for _attempt in range(3):
                try:
                    presented[endpoint] = presented_fingerprint(endpoint)
                    break
                except wire.WireError as error:
                    if error.kind == "timeout":
                        break
                    time.sleep(0.1)
        return presented

    def _wait_for(self, generation: str, endpoints: t.Sequence[Endpoint]) -> None:
        """Wait until every endpoint presents the pair on a new connection; workers that are being replaced may answer for a moment."""
        wanted = leaf_fingerprint(self.store.chain(self.name, generation))
        until = time.monotonic() + self.patience
        for endpoint in endpoints:
            while True:
                try:
                    presented = presented_fingerprint(endpoint)
                    seen = f"presents another certificate (SHA-256 {presented[:16]}..., wanted is {wanted[:16]}...)"
                except wire.WireError as error:
                    presented, seen = "", f"presents none: {error}"
                if presented == wanted:
                    break
                if time.monotonic() >= until:
                    raise InstallError(f"{endpoint} {seen}, {self.patience:g} seconds after the change")
                time.sleep(0.1)

    def _should_be_seen(self) -> bool:
        """Whether there are endpoints, and the units that serve them run."""
        return bool(self.spec.endpoints) and all(
            _run(["systemctl", "is-active", "--quiet", unit]).returncode == 0 for unit in self.spec.reload_units
        )

    def _wait_for_any(self, generation: str) -> None:
        wanted = leaf_fingerprint(self.store.chain(self.name, generation))
        until = time.monotonic() + self.patience
        while wanted not in self._measure().values():
            if time.monotonic() >= until:
                raise InstallError(f"no endpoint presents it, {self.patience:g} seconds after the change")
            time.sleep(0.1)

    def _look_again(self) -> None:
        """A watch that failed because of the pair before looks again now and not in hours."""
        if self.spec.endpoints and _run(["systemctl", "is-failed", "--quiet", WATCH_UNIT]).returncode == 0:
            _run(["systemctl", "start", "--no-block", WATCH_UNIT])


def presented_fingerprint(endpoint: Endpoint, timeout: float = 5) -> str:
    """What an endpoint presents on a new connection. Raises wire.WireError."""
    return wire.fingerprints(wire.fetch(endpoint.host, endpoint.port, endpoint.server_name, endpoint.starttls, timeout).chain_pem)[0]


def leaf_fingerprint(chain: str) -> str:
    """SHA-256 of the first certificate in PEM; empty when there is none."""
    return (wire.fingerprints(chain) or [""])[0]


def _run(command: t.Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Whatever the connection's or the service's PATH is.
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {**os.environ, "PATH": path.lstrip(":")}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False, cwd="/", env=environment
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no end within 90 seconds")


def _must(command: t.Sequence[str], title: str) -> None:
    done = _run(command)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-500:] or f"exit status {done.returncode}"
        raise InstallError(f"{title}: {said}")
