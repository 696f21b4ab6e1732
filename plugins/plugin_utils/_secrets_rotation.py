# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New values for secrets of an environment, with the old ones kept until it is proven that nobody takes them any more.

Private to the collection: no promise of stability. Runs on the controller only.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError, SecretsFile, check_name, random_value


def kept_path(path: str) -> str:
    """Where the secrets file from before lies meanwhile. Hidden, as Ansible reads other files beside an inventory as inventories."""
    directory, name = os.path.split(os.path.realpath(os.path.expanduser(path)))
    return os.path.join(directory, f".{name}.before-rotation")


def begin(store: SecretsFile, lengths: t.Mapping[str, int], check_mode: bool = False) -> t.Tuple[t.List[str], t.List[str]]:
    """Give secrets new values, each once in a rotation however often it is begun.

    Args:
        store: the secrets file.
        lengths: names of the secrets, each with its number of characters.

    Returns:
        Names that got a new value now, and all names that have one in this rotation.

    Raises:
        SecretsError: the file cannot be used, or it does not have a name; then nothing was changed.
    """
    missing = store.names_missing([check_name(name) for name in lengths])
    if missing:
        raise SecretsError(
            f"{store.path} has no {', '.join(missing)}", f"It has: {', '.join(store.names())}. Write names of these, or all of them: all"
        )
    kept = store.sibling(kept_path(store.path))
    done = changed_names(store, kept)
    due = [name for name in lengths if name not in done]
    if due and not check_mode:
        if not os.path.exists(kept.path):
            _keep(store.path, kept.path)
        store.change(due, lambda _old: {name: random_value(lengths[name]) for name in due})
    return due, sorted({*done, *due})


def changed_names(store: SecretsFile, kept: SecretsFile) -> t.List[str]:
    """Names whose value is no longer the one in the kept file; none when no rotation is under way."""
    names = kept.names() if os.path.exists(kept.path) else []
    return [name for name in names if store.get(name) != kept.get(name)]


def finish(store: SecretsFile, check_mode: bool = False) -> bool:
    """Forget the old values; false when there are none. To be called when they are proven to be of no use."""
    path = kept_path(store.path)
    if not os.path.exists(path):
        return False
    if not check_mode:
        os.unlink(path)
    return True


def _keep(path: str, copy: str) -> None:
    """The encrypted file as it is, whole or not at all."""
    temporary = f"{copy}.{os.getpid()}"
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # Never over one that is there: it has the older values.
        os.link(temporary, copy)
    except FileExistsError:
        pass
    except OSError as error:
        raise SecretsError(f"{copy} cannot be written: {error.strerror}", "Make its directory writable for you.") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
