# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of data into a member, and out of it: C(source | zstd | age), counted and digested on the way.

Private to the collection: no promise of stability. Standard library only.

Nothing is in plain text on a disk, and neither a key nor data on a command line: recipients are public keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import re
import subprocess
import tempfile
import threading
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, Member

# Two are quicker than what is read, and each takes some 30 MB.
THREADS = min(2, os.cpu_count() or 1)
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_SPACE_EVERY = 64 * 2**20
# Of CHUNK bytes each: what is read, compressed and digested goes on at once, in threads of its own.
_BUFFERS = 4


class PipeError(Exception):
    """A member could not be made or read; the text says why."""


class SourceError(Exception):
    """What was declared cannot be in the set; the text says why. The rest of the set can be made."""


class WrongKeyError(PipeError):
    """The private key is none of those that a member is encrypted to."""


def check_recipients(recipients: t.Sequence[str]) -> None:
    """Raises PipeError unless age can encrypt to all of them."""
    wrong = [one for one in recipients if not _RECIPIENT.fullmatch(one)]
    if wrong or not recipients:
        # What is no public key may be a private one, and is not repeated.
        raise PipeError(f"{len(wrong)} of the {len(recipients)} recipients are no public keys of age; each begins with 'age1'")
    with tempfile.TemporaryFile() as target:
        writer = Writer("recipients", recipients, target, lambda: None)
        writer.write(b"")
        writer.close()


class Writer:
    """Encrypts what is written to it.

    Args:
        name: of the member.
        recipients: public keys of age.
        target: the open file that takes the cipher text; it is closed at the end.
        room: called now and then; raises when the disk gets too full.
    """

    def __init__(self, name: str, recipients: t.Sequence[str], target: t.IO[bytes], room: t.Callable[[], None]) -> None:
        self.name = name
        self._target = target
        self._room = room
        # Of the cipher text alone: age lets none of it be altered, and zstd sums what it packed up by itself.
        self._cipher = hashlib.sha256()
        self._plain_bytes = self._cipher_bytes = 0
        self._fault: t.Optional[BaseException] = None
        self._broken = False
        self._threads: t.List[threading.Thread] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the programs
        self._parts: t.List[subprocess.Popen[bytes]] = []
        try:
            zstd = self._start(["zstd", "-q", "-c", f"-T{THREADS}", "-3"], subprocess.PIPE)
            age = self._start(["age", *(word for one in recipients for word in ("-r", one))], zstd.stdout)
        except OSError as error:
            self.abort()
            raise PipeError(f"{error.filename}: {error.strerror}; the package {error.filename} is missing") from error
        t.cast(t.IO[bytes], zstd.stdout).close()
        self._input = t.cast(t.IO[bytes], zstd.stdin)
        self._output = t.cast(t.IO[bytes], age.stdout)
        for stream in (self._input, self._output):
            _widen(stream)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[t.Tuple[bytearray, int]] = queue.SimpleQueue()
        for _number in range(_BUFFERS):
            self._free.put(bytearray(CHUNK))
        self._buffer, self._filled = self._free.get(), 0
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._feed, self._collect)]
        for thread in self._threads:
            thread.start()

    def _start(self, command: t.List[str], source: t.Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0)
        self._parts.append(process)
        return process

    def _feed(self) -> None:
        """Give what was written to zstd; an empty buffer is the end."""
        broken = False
        while True:
            buffer, size = self._full.get()
            view = memoryview(buffer)[:size]
            try:
                # What zstd does not take any more is nothing to wait for: who writes learns of it at the next buffer, or at the end.
                while view and not broken:
                    view = view[os.write(self._input.fileno(), view) :]
            except OSError:
                broken = self._broken = True
            if not size:
                with contextlib.suppress(OSError):
                    self._input.close()
                return
            self._free.put(buffer)

    def _collect(self) -> None:
        try:
            unchecked = _SPACE_EVERY
            while True:
                data = self._output.read(CHUNK)
                if not data:
                    return
                if unchecked >= _SPACE_EVERY:
                    self._room()
                    unchecked = 0
                unchecked += len(data)
                self._target.write(data)
                self._cipher.update(data)
                self._cipher_bytes += len(data)
        except BaseException as error:
            self._fault = error
            # Who writes learns it at once.
            for part in self._parts:
                part.kill()

    def write(self, data: t.Union[bytes, bytearray, memoryview]) -> None:
        """Raises PipeError, or what C(room) or the target raised."""
        self._plain_bytes += len(data)
        view = memoryview(data)
        while view:
            part = view[: CHUNK - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == CHUNK:
                self._hand_over()
        if self._broken:
            raise self._failed()

    def _hand_over(self) -> None:
        self._full.put((self._buffer, self._filled))
        self._buffer, self._filled = self._free.get(), 0

    def _end(self) -> None:
        """No more is written, and the threads have ended."""
        if self._threads:
            if self._filled:
                self._hand_over()
            self._full.put((self._buffer, 0))
            for thread in self._threads:
                thread.join()
            self._threads = []
            self._output.close()

    def close(self) -> Member:
        """All is written; the member is whole in its file. Raises as C(write)."""
        self._end()
        statuses = [part.wait() for part in self._parts]
        if self._fault is not None or any(statuses):
            raise self._failed()
        try:
            self._target.flush()
            os.fsync(self._target.fileno())
            self._target.close()
        except OSError as error:
            raise PipeError(f"{self.name} could not be written: {error.strerror}") from error
        finally:
            self._errors.close()
        return Member(self.name, self._cipher_bytes, self._cipher.hexdigest(), self._plain_bytes)

    def _failed(self) -> BaseException:
        self.abort()
        if isinstance(self._fault, OSError):
            return PipeError(f"{self.name} could not be written: {self._fault.strerror}")
        if self._fault is not None:
            return self._fault
        statuses = ", ".join(f"{t.cast(t.List[str], part.args)[0]} ended with {part.returncode}" for part in self._parts)
        return PipeError(f"{self.name}: {statuses}: {_said(self._errors)}")

    def abort(self) -> None:
        """End the programs, and close the target; what is in it is worth nothing."""
        for part in self._parts:
            part.kill()
        for part in self._parts:
            part.wait()
        self._end()
        with contextlib.suppress(OSError):
            self._target.close()


def _widen(stream: t.IO[bytes]) -> None:
    # Fewer switches between the programs; where an unprivileged user has used up his share, it stays as it is.
    with contextlib.suppress(OSError):
        fcntl.fcntl(stream.fileno(), 1031, CHUNK)  # F_SETPIPE_SZ


def _said(errors: t.IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read(4096).decode("utf-8", "replace").split())[:300] or "it said nothing"


@contextlib.contextmanager
def reader(path: str, member: Member, identity: str) -> t.Iterator[Reader]:
    """The plain text of a member; at the end it is proven to be whole.

    Args:
        path: its file.
        identity: file with private keys of age.

    Raises:
        WrongKeyError: no key fits.
        PipeError: it is not what the manifest says.
        OSError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        source = stack.enter_context(open(path, "rb"))
        try:
            age = subprocess.Popen(["age", "-d", "-i", identity], stdin=source, stdout=subprocess.PIPE, stderr=errors)
            stack.callback(_end, age)
            zstd = subprocess.Popen(["zstd", "-q", "-d", "-c"], stdin=age.stdout, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
            stack.callback(_end, zstd)
        except OSError as error:
            raise PipeError(f"{error.filename}: {error.strerror}; the package {error.filename} is missing") from error
        t.cast(t.IO[bytes], age.stdout).close()

        def check(found: Reader) -> None:
            statuses = [age.wait(), zstd.wait()]
            if any(statuses):
                said = _said(errors)
                if "no identity matched" in said:
                    raise WrongKeyError(f"{member.name} is not encrypted to this key")
                raise PipeError(f"{member.name} cannot be decrypted: {said}")
            if found.bytes != member.plain_bytes:
                raise PipeError(f"{member.name}: its content is not what the manifest says")

        stream = Reader(t.cast(t.IO[bytes], zstd.stdout), check)
        _widen(stream.stream)
        yield stream
        while stream.read(CHUNK):
            pass


class Reader:
    """Counts what is read.

    Args:
        check: called at the end, before who reads sees it; raises when it is no good end.
    """

    def __init__(self, stream: t.IO[bytes], check: t.Callable[[Reader], None]) -> None:
        self.stream = stream
        self.bytes = 0
        self._check: t.Optional[t.Callable[[Reader], None]] = check

    def read(self, size: int) -> bytes:
        """At least one byte unless it is the end, as of a pipe."""
        data = self.stream.read(size)
        self.bytes += len(data)
        if not data and self._check is not None:
            check, self._check = self._check, None
            check(self)
        return data


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
