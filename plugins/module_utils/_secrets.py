# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of one environment: a vault-encrypted YAML file, a mapping of names to texts.

Private to the collection: no promise of stability. Runs on the controller only. No message of this module holds a secret, nor a part of the
decrypted text.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import string
import tempfile
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

try:
    import yaml
except ImportError:  # pragma: no cover - Ansible itself needs it, only the import test has none
    yaml = None  # type: ignore[assignment]

ALPHABET = string.ascii_letters + string.digits
DEFAULT_LENGTH = 40
MIN_LENGTH = 16
MAX_LENGTH = 1024

_VAULT_HEADER = b"$ANSIBLE_VAULT;"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")
# What example files and tired people leave behind.
_PLACEHOLDER = re.compile(
    r"(?i)\W*(change[ _-]?me|replace[ _-]?me|replace[ _-]?this|todo|fixme|placeholder|your[ _-]\w+|x{3,}|\.{3})[\w ]{0,12}\W*"
)

ADVICE_PATH = "Set civitas_secrets_file to a path such as inventories/production/secrets.yml."
_OR_REMOVE = "remove the line to have one generated."
_LINES = "write one 'name: \"value\"' a line."
_ADVICE_PASSWORD = "Name the file that holds the vault password with --vault-password-file or in ANSIBLE_VAULT_PASSWORD_FILE."

# path -> (identity of the file's state, the vault it was read with, its content)
_CACHE: t.Dict[str, t.Tuple[t.Tuple[int, ...], t.Any, _Content]] = {}


class SecretsError(Exception):
    """A secret or the secrets file cannot be used; C(problem) says what is wrong, C(remedy) what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}. {remedy}")
        self.problem = problem
        self.remedy = remedy


class _Content(t.NamedTuple):
    values: t.Dict[str, t.Any]
    text: str
    label: t.Optional[str]
    secret: t.Any


_EMPTY = _Content({}, "", None, None)


def random_value(length: int = DEFAULT_LENGTH) -> str:
    """Return C(length) random letters and digits (5.95 bits each) from the system's generator.

    Raises:
        SecretsError: a length below 16 or above 1024, or no whole number.
    """
    if isinstance(length, bool) or not isinstance(length, int) or not MIN_LENGTH <= length <= MAX_LENGTH:
        raise SecretsError(
            f"the length of a secret is {length!r:.40}",
            f"Write a whole number from {MIN_LENGTH} to {MAX_LENGTH}, or nothing for {DEFAULT_LENGTH}.",
        )
    return "".join(secrets.choice(ALPHABET) for dummy in range(length))


def check_name(name: t.Any) -> str:
    """Return C(name) when it can name a secret: lower-case letters, digits, underscores, at most 128.

    Raises:
        SecretsError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SecretsError(
            f"{name!r:.60} is no name for a secret",
            "Use lower-case letters, digits and underscores, a letter first, such as app_demo_database_password.",
        )
    return str(name)


def check_value(name: str, value: t.Any, path: str) -> str:
    """Return C(value) as text when it can be used as a secret.

    Raises:
        SecretsError: no text, empty, or a placeholder. The value itself is not in the message.
    """
    edit = f"ansible-vault edit {path}"
    if value is None or (isinstance(value, str) and not value.strip()):
        raise SecretsError(f"secret '{name}' is empty", f"Run {edit} and write its value, or {_OR_REMOVE}")
    if not isinstance(value, str):
        raise SecretsError(f"secret '{name}' is {in_words(value)} and not a text", f'Run {edit} and put the value in quotes: {name}: "..."')
    if len(value) < 64 and _PLACEHOLDER.fullmatch(value):
        raise SecretsError(f"secret '{name}' holds a placeholder", f"Run {edit} and write the true value, or {_OR_REMOVE}")
    return str(value)


class SecretsFile:
    """The secrets file at C(path), read and written with C(vault).

    A value that is in the file is changed only by C(change). All writing is done under a lock, so that parallel processes agree.

    Args:
        path: the file; it need not exist, its directory must.
        vault: Ansible's C(VaultLib) with the secrets of this run.
        new_identity: C((label, secret)) with which a new file is encrypted; the first secret of C(vault) when left out.
    """

    def __init__(self, path: str, vault: t.Any, new_identity: t.Optional[t.Tuple[t.Optional[str], t.Any]] = None) -> None:
        if not isinstance(path, str) or not path or re.search(r"[\x00-\x1f\x7f]", path):
            raise SecretsError(f"{path!r:.60} is no path of a secrets file", ADVICE_PATH)
        # The true file behind a link, because it is replaced by renaming.
        self.path = os.path.realpath(os.path.expanduser(path))
        self._vault = vault
        self._new_identity = new_identity

    def get(self, name: str) -> t.Optional[str]:
        """Return the value of C(name), or V(None) when the file does not have it.

        Raises:
            SecretsError: file or value cannot be used.
        """
        check_name(name)
        values = self._read().values
        return check_value(name, values[name], self.path) if name in values else None

    def names(self) -> t.List[str]:
        """Return the names that the file has, sorted."""
        return sorted(str(name) for name in self._read().values)

    def texts(self) -> t.Dict[str, t.List[str]]:
        """Return all that the file has, of whatever shape: a name to the texts below it. For who looks for them elsewhere."""

        def leaves(value: t.Any) -> t.Iterator[str]:
            if isinstance(value, (dict, list)):
                for item in value.values() if isinstance(value, dict) else value:
                    yield from leaves(item)
            elif value is not None and not isinstance(value, bool):
                yield str(value)

        return {str(name): list(leaves(value)) for name, value in self._read().values.items()}

    def names_missing(self, names: t.Iterable[str]) -> t.List[str]:
        """Return those of C(names) that the file does not have, in their order."""
        values = self._read().values
        return [name for name in dict.fromkeys(names) if check_name(name) not in values]

    def ensure(self, factories: t.Mapping[str, t.Callable[[], str]]) -> t.Dict[str, str]:
        """Return the values of all names; what is missing is made by its factory and written at once.

        Args:
            factories: name to a function that makes its value. It is called only for a missing name.

        Raises:
            SecretsError: file or a value cannot be used, or the file cannot be written; then nothing was written.
        """
        for name in factories:
            check_name(name)
        if self.names_missing(factories):
            with self._lock():
                content = self._read()
                added = {name: check_value(name, factories[name](), self.path) for name in factories if name not in content.values}
                if added:
                    self._write(content, added)
        values = self._read().values
        return {name: check_value(name, values[name], self.path) for name in factories}

    def change(self, names: t.Sequence[str], function: t.Callable[[t.Dict[str, str]], t.Mapping[str, str]]) -> t.Dict[str, str]:
        """Replace values that the program keeps for itself, under the lock.

        Args:
            names: what C(function) gets, with an empty text for what the file does not have.
            function: the current values to those that are wanted. What it leaves out, or returns as it was, stays as it is.

        Returns:
            All C(names) with their values as they are now.

        Raises:
            SecretsError: file or a value cannot be used, or the file cannot be written; then nothing was written.
        """
        for name in names:
            check_name(name)
        with self._lock():
            content = self._read()
            before = {name: check_value(name, content.values.get(name), self.path) if name in content.values else "" for name in names}
            wanted = {**before, **function(dict(before))}
            changed = {name: check_value(name, value, self.path) for name, value in wanted.items() if value != before.get(name, "")}
            if changed:
                self._write(content, changed)
        return wanted

    def sibling(self, path: str) -> SecretsFile:
        """Return another secrets file, which is encrypted like this one when it is made."""
        content = self._read()
        return SecretsFile(path, self._vault, (content.label, content.secret) if content.secret is not None else self._new_identity)

    def check_writable(self) -> None:
        """See that a value could be added.

        Raises:
            SecretsError: no vault password, or the directory is missing or not writable.
        """
        self._need_password()
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            raise SecretsError(f"{self.path} cannot be written", f"Create {directory} and make it writable for you.")

    def _read(self) -> _Content:
        try:
            with open(self.path, "rb") as handle:
                status = os.fstat(handle.fileno())
                identity = (status.st_mtime_ns, status.st_ino, status.st_size)
                cached = _CACHE.get(self.path)
                if cached and cached[0] == identity and cached[1] is self._vault:
                    return cached[2]
                data = handle.read()
        except FileNotFoundError:
            return _EMPTY
        except OSError as error:
            raise SecretsError(f"{self.path} cannot be read: {error.strerror}", "Make it a file that you may read.") from None
        content = self._parse(data)
        _CACHE[self.path] = (identity, self._vault, content)
        return content

    def _parse(self, data: bytes) -> _Content:
        if not data.strip():
            raise SecretsError(
                f"{self.path} is empty", f"Remove it to have one made, or write secrets and run ansible-vault encrypt {self.path}"
            )
        if not data.startswith(_VAULT_HEADER):
            raise SecretsError(f"{self.path} is not encrypted", f"Run ansible-vault encrypt {self.path}")
        self._need_password()
        try:
            plain, _label_used, secret = self._vault.decrypt_and_get_vault_id(data)
            text = bytes(plain).decode("utf-8")
        except UnicodeDecodeError:
            raise SecretsError(f"{self.path} holds no UTF-8 text", "It must be YAML, one 'name: value' a line.") from None
        except Exception:  # the vault's error types differ between releases
            raise SecretsError(
                f"{self.path} cannot be decrypted with the vault password of this run",
                "Give the password that it was encrypted with, or restore the file from a copy.",
            ) from None
        return _Content(_mapping(text, self.path), text, _label(data), secret)

    def _need_password(self) -> None:
        if not getattr(self._vault, "secrets", None):
            raise SecretsError(f"no vault password was given, so {self.path} can be neither read nor written", _ADVICE_PASSWORD)

    def _write(self, content: _Content, added: t.Dict[str, str]) -> None:
        self._need_password()
        wanted = {**content.values, **added}
        # Appended, so that comments and order of what people wrote stay; a text that cannot be appended to is written anew.
        kept = _without(content.text, [name for name in added if name in content.values])
        text = kept.rstrip("\n") + "\n" if kept.strip() else "---\n"
        text += _dump(added)
        try:
            appended = _mapping(text, self.path) == wanted
        except SecretsError:
            appended = False
        if not appended:
            text = "---\n" + _dump(wanted)
        label, secret = content.label, content.secret
        if secret is None:
            label, secret = self._new_identity or self._vault.secrets[0]
        self._replace(self._vault.encrypt(text.encode("utf-8"), secret=secret, vault_id=label))

    def _replace(self, data: bytes) -> None:
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(self.path)}.", dir=os.path.dirname(self.path))
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(data)
                with contextlib.suppress(FileNotFoundError):
                    # Colleagues who could read the file can still read it.
                    status = os.stat(self.path)
                    os.fchmod(descriptor, status.st_mode & 0o777)
                    if os.geteuid() == 0:
                        os.fchown(descriptor, status.st_uid, status.st_gid)
                handle.flush()
                os.fsync(descriptor)
            os.rename(temporary, self.path)
            temporary = None
        except OSError as error:
            raise SecretsError(
                f"{self.path} cannot be written: {error.strerror}", "Make its directory writable for you and see that the disk is not full."
            ) from None
        finally:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    @contextlib.contextmanager
    def _lock(self) -> t.Iterator[None]:
        # Hidden, because Ansible reads other files in a directory of inventories as inventories. Kept, because removing a lock is a race.
        directory, name = os.path.split(self.path)
        try:
            descriptor = os.open(os.path.join(directory, f".{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SecretsError(
                f"{self.path} cannot be written: {directory}: {error.strerror}", "Create its directory and make it writable for you."
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _mapping(text: str, path: str) -> t.Dict[str, t.Any]:
    try:
        values = yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.YAMLError as error:
        # The error's own text quotes the line, and with it a secret.
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        raise SecretsError(f"{path} is no valid YAML{place}", f"Run ansible-vault edit {path} and {_LINES}") from None
    except (ValueError, RecursionError):
        raise SecretsError(
            f"{path} holds a value that YAML cannot read", f"Run ansible-vault edit {path} and put values in quotes."
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SecretsError(f"{path} holds {in_words(values)} and not a mapping", f"Run ansible-vault edit {path} and {_LINES}")
    return values


def _without(text: str, names: t.Sequence[str]) -> str:
    """C(text) without the lines of these names: the line that begins with the name, and what is indented below it."""
    for name in names:
        text = re.sub(rf"^{re.escape(name)}[ ]*:.*\n?(?:(?:[ \t].*)?\n|[ \t].*\Z)*", "", text, flags=re.MULTILINE)
    return text


def _dump(values: t.Mapping[str, t.Any]) -> str:
    # Ansible's texts carry where they come from; the writer takes only texts that are nothing more.
    exact = {_exact(name): _exact(value) for name, value in values.items()}
    return str(yaml.dump(exact, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20))


def _exact(value: t.Any) -> t.Any:
    return str.__str__(value) if isinstance(value, str) else value


def _label(data: bytes) -> t.Optional[str]:
    """The vault id in the first line of a vault file: C($ANSIBLE_VAULT;1.2;AES256;production)."""
    parts = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(";")
    return parts[3] if len(parts) > 3 else None


if yaml:
    # The fast ones where PyYAML was built with libyaml.
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Texts of several lines (keys, certificates) as blocks that people can read."""

    def _text(dumper: t.Any, value: str) -> t.Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    _Dumper.add_representer(str, _text)
