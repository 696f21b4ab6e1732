# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command prints, as a member of a set.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, Member, file_name
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import SourceError, Writer


class CommandError(SourceError):
    """A command did not print what it should; the text says why."""


class Command(t.NamedTuple):
    """A declared command.

    Attributes:
        run: the command; it is seen by everybody on the host, so it holds no secret.
        minimum: bytes that it prints at least.
        ends: what stands near the end of what it prints; empty for nothing known.
        timeout: seconds that it may take.
    """

    name: str
    run: t.Tuple[str, ...]
    minimum: int = 1
    ends: str = ""
    timeout: float = 3600.0


def make(
    command: Command, open_member: t.Callable[[str], Writer], close_member: t.Callable[[Writer], Member]
) -> t.Tuple[t.Dict[str, t.Any], Member]:
    """The command's part of the manifest, and its member.

    Raises:
        CommandError: it failed, or printed too little.
        PipeError: the member cannot be made.
    """
    writer = open_member(f"command-{file_name(command.name)}.zst.age")
    member = dump(command.run, writer, close_member, ends=command.ends.encode(), minimum=command.minimum, timeout=command.timeout)
    return {"kind": "command", "name": command.name, "members": [member.name]}, member


def dump(
    command: t.Sequence[str],
    writer: Writer,
    close_member: t.Callable[[Writer], Member],
    begins: bytes = b"",
    ends: bytes = b"",
    minimum: int = 1,
    timeout: t.Optional[float] = None,
) -> Member:
    """What a command prints, as a member.

    Args:
        begins: how it must begin.
        ends: what must be near its end; what was cut off lacks it.
        minimum: bytes that it must print.
        timeout: seconds that it may take; none for any.

    Raises:
        CommandError: it failed, or printed too little.
        PipeError: the member cannot be made.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115, it is closed at the end
    late = threading.Event()
    try:
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/", bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error

        def end() -> None:
            # What it has started as well, such as pg_dump behind runuser: as long as one of them has the pipe, there is no end of it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def stop() -> None:
            late.set()
            end()

        timer = threading.Timer(timeout, stop) if timeout else None
        if timer:
            timer.start()
        head, tail, size, whole = b"", b"", 0, False
        stdout = t.cast(t.IO[bytes], process.stdout)
        try:
            for data in iter(lambda: stdout.read(CHUNK), b""):
                writer.write(data)
                size += len(data)
                head = head or data[:64]
                tail = (tail + data)[-4096:]
            status = process.wait()
            whole = True
        finally:
            if timer:
                timer.cancel()
            stdout.close()
            if not whole:
                end()
            process.wait()
        what = os.path.basename(command[0])
        if late.is_set():
            raise CommandError(f"{what} took more than {timeout:g} seconds")
        if status != 0:
            raise CommandError(f"{writer.name}: {what} ended with {status}: {said(errors)}")
        if size < minimum or not head.startswith(begins) or ends not in tail:
            raise CommandError(f"{writer.name}: {what} ended well, and printed {size} bytes that are not all that it should print")
        return close_member(writer)
    except BaseException:
        writer.abort()
        raise
    finally:
        errors.close()


def said(errors: t.IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read(4096).decode("utf-8", "replace").split())[:300] or "it said nothing"
