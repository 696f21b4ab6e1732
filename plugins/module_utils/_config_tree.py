# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree of files, links and directories that is applied as one: everything is checked first, then all of it is put in
place, and all of it is put back when a command says that the result is wrong.

build() judges the description (on the controller and again on the target), plan() compares it with a host without
changing anything, apply() carries the difference out.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import fnmatch
import functools
import grp
import os
import posixpath
import pwd
import re
import secrets
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

FILE_KEYS = ("enabled", "group", "mode", "owner", "secret", "validate")
DIRECTORY_KEYS = ("exclusive", "group", "keep", "mode", "owner")

# Above this size a diff helps nobody (the same limit as in ansible-core).
DIFF_LIMIT = 104448
OUTPUT_LIMIT = 4000
# The prefix keeps short contents from equalling (and thereby censoring) a path or a mode in a result: values of
# parameters marked no_log are replaced wherever they occur.
ENCODING = "base64:"

# Names of staged files and of copies kept for putting back. The dot keeps them out of conf.d includes, cron and sudoers; the file's own
# name stays at the end for validators that want a known suffix. The process id tells a leftover from work in progress.
_SCRATCH = re.compile(r"\.civitas-(\d+)-[0-9a-f]{8}(\..*)?\Z", re.DOTALL)
_MODE = re.compile(r"0{0,2}[0-7]{3,4}\Z")
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class TreeError(Exception):
    """One or more problems, each a sentence that names the file and what to write; and what has become of the host."""

    def __init__(self, problems: Sequence[str], state: str = "nothing was changed") -> None:
        self.problems = list(problems)
        self.state = state
        if len(self.problems) == 1:
            message = f"{self.problems[0]} ({state})"
        else:
            message = f"{len(self.problems)} problems ({state}):\n" + "\n".join("- " + problem for problem in self.problems)
        super().__init__(message)


@dataclass(frozen=True)
class Attributes:
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class File:
    data: bytes
    attributes: Attributes
    validate: str | None = None
    secret: bool = False


@dataclass(frozen=True)
class Directory:
    attributes: Attributes
    exclusive: bool = False
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """What a host should look like below root. All paths are relative to root and in canonical form."""

    root: str
    made: Attributes  # of directories that have to be made but are not listed
    files: Mapping[str, File] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Directory] = field(default_factory=dict)
    absent: Sequence[str] = ()
    verify: Sequence[str] = ()
    secret: bool = False  # whether any file is secret, those that are switched off included


# --- description ------------------------------------------------------------------------------------------------------


def check_path(path: object) -> str:
    """The path, when it is relative to root, stays below it and is in canonical form. ValueError says what to write."""
    if not isinstance(path, str) or not path:
        raise ValueError("a path is expected, relative to root, such as etc/nginx/nginx.conf")
    if not path.isprintable():
        raise ValueError("characters that cannot be seen, and bytes that are no text, are not accepted in a path")
    if ".." in path.split("/"):
        raise ValueError("leaves the root; write the path below root without '..'")
    canonical = posixpath.normpath(path).lstrip("/")
    if canonical in ("", "."):
        raise ValueError("names the root itself; name something below it")
    if canonical != path:
        raise ValueError(f"paths are relative to root and have no needless parts; write '{canonical}'")
    if any(len(part.encode()) > 255 for part in path.split("/")):
        raise ValueError("a part of the path is longer than 255 bytes")
    return path


def parse_mode(value: object) -> int:
    """The number of a mode such as "0644". ValueError says what to write."""
    if isinstance(value, int):
        raise ValueError(f'the mode {value} is a number, which YAML makes of unquoted digits; write it in quotes, such as mode: "0644"')
    if not isinstance(value, str) or not _MODE.match(value):
        raise ValueError(f'the mode {value!a} is not octal; write four digits in quotes, such as mode: "0644"')
    return int(value, 8)


def parse_name(value: object, key: str) -> str:
    """The name or number of a user or group, as text."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z", str(value)):
        raise ValueError(f"the {key} {value!a} is neither a name nor a number")
    return str(value)


def parse_bool(value: object, key: str) -> bool:
    """True or false from what YAML and templates make of it."""
    text = str(value).lower()
    if text in ("true", "yes", "1"):
        return True
    if text in ("false", "no", "0"):
        return False
    raise ValueError(f"{key} is neither true nor false; write {key}: true or {key}: false")


def parse_command(command: object, key: str, placeholder: bool = False) -> list[str]:
    """The words of a command, with %s among them where it is due."""
    if not isinstance(command, str):
        raise ValueError(f"{key} is not a text; write the command in quotes")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{key} cannot be split into words ({error}); close the quotation") from None
    if not words:
        raise ValueError(f"{key} is empty; write a command or leave it out")
    if placeholder and not any("%s" in word for word in words[1:]):
        raise ValueError(f"{key} lacks %s, which stands for the file to be judged; write it, such as '{words[0]} %s'")
    return words


def encode(data: bytes) -> str:
    return ENCODING + base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes:
    if not text.startswith(ENCODING):
        raise ValueError("contents are filled in by the action plugin, not by playbooks")
    try:
        return base64.b64decode(text[len(ENCODING) :], validate=True)
    except binascii.Error:
        raise ValueError("contents are damaged") from None


class _Builder:
    """Collects all problems of a description instead of stopping at the first."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)
        self.problems: list[str] = []

    @contextlib.contextmanager
    def about(self, name: object) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{name if isinstance(name, str) and name.isprintable() else ascii(name)}: {error}")

    def mapping(self, key: str) -> dict[Any, Any]:
        value = self.params.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.problems.append(f"{key}: a mapping is expected, from paths relative to root")
        return dict(value) if isinstance(value, Mapping) else {}

    def sequence(self, key: str) -> list[Any]:
        value = self.params.get(key)
        if value is not None and (isinstance(value, (str, Mapping)) or not isinstance(value, Sequence)):
            self.problems.append(f"{key}: a list is expected")
            return []
        return list(value or ())

    def attributes(self, options: Mapping[str, Any], mode: str = "mode") -> Attributes:
        def given(key: str, default: str) -> Any:
            value = options.get(key)
            return self.params[default] if value is None else value

        owner, group = (parse_name(given(key, key), key) for key in ("owner", "group"))
        return Attributes(owner, group, parse_mode(given("mode", mode)))

    def defaults(self) -> None:
        for key, default in (("owner", "root"), ("group", "root"), ("mode", "0644"), ("directory_mode", "0755")):
            if self.params.get(key) is None:
                self.params[key] = default
            try:
                parse_mode(self.params[key]) if key.endswith("mode") else parse_name(self.params[key], key)
            except ValueError as error:
                self.problems.append(f"{key}: {error}")
                self.params[key] = default  # named once and not for every file again

    def options(self, options: object, keys: Sequence[str]) -> dict[str, Any]:
        if options is None:
            return {}
        if not isinstance(options, Mapping):
            raise ValueError("a mapping is expected, of " + ", ".join(keys))
        for key in options:
            if key not in keys:
                raise ValueError(f"the option {key!a} is not known; known are {', '.join(keys)}")
        return dict(options)

    def build(self) -> Tree:
        root = self.params.get("root")
        root = "/" if root is None else root
        if not isinstance(root, str) or not root.startswith("/") or os.path.normpath(root) != root or not root.isprintable():
            self.problems.append(f"root: {root!a} is not an absolute path in plain form; write such as /srv/tree")
            root = "/"
        self.defaults()
        any_secret = False
        contents = self.mapping("contents")
        files: dict[str, File] = {}
        absent: dict[str, None] = {}
        for path, raw in self.mapping("files").items():
            with self.about(path):
                check_path(path)
                options = self.options(raw, FILE_KEYS)
                enabled, secret = options.get("enabled"), options.get("secret")
                attributes = self.attributes(options)
                validate = options.get("validate")
                if validate is not None:
                    parse_command(validate, "validate", placeholder=True)
                hidden = secret is not None and parse_bool(secret, "secret")
                any_secret = any_secret or hidden
                if enabled is not None and not parse_bool(enabled, "enabled"):
                    absent[path] = None
                elif path not in contents:
                    raise ValueError("has no content; contents are filled in by the action plugin, not by playbooks")
                else:
                    files[path] = File(decode(contents[path]), attributes, validate, hidden)

        directories: dict[str, Directory] = {}
        for path, raw in self.mapping("directories").items():
            with self.about(path):
                check_path(path)
                options = self.options(raw, DIRECTORY_KEYS)
                exclusive, keep = options.get("exclusive"), options.get("keep")
                if keep is not None and not (isinstance(keep, (list, tuple)) and all(isinstance(item, str) for item in keep)):
                    raise ValueError('keep is not a list of file name patterns; write such as keep: ["*.local"]')
                exclusive = exclusive is not None and parse_bool(exclusive, "exclusive")
                if exclusive and posixpath.join(root, path).count("/") < 2:
                    raise ValueError("is a directory of the whole system and cannot be exclusive; name a directory below it")
                directories[path] = Directory(self.attributes(options, "directory_mode"), exclusive, tuple(keep or ()))

        links: dict[str, str] = {}
        for path, target in self.mapping("links").items():
            with self.about(path):
                check_path(path)
                if not isinstance(target, str) or not target or not target.isprintable():
                    raise ValueError(f"a link's target is a path; write such as {path}: /usr/share/zoneinfo/Etc/UTC")
                links[path] = target

        for path in self.sequence("absent"):
            with self.about(path):
                absent[check_path(path)] = None
        for command in self.sequence("verify"):
            with self.about("verify"):
                parse_command(command, "verify")

        self.conflicts(files, links, directories, absent)
        if self.problems:
            raise TreeError(self.problems)
        made = self.attributes({}, "directory_mode")
        return Tree(root, made, files, links, directories, tuple(absent), tuple(self.sequence("verify")), any_secret)

    def conflicts(self, *groups: Mapping[str, object]) -> None:
        """One path, one meaning; and nothing lies below what is no directory."""
        meaning: dict[str, str] = {}
        for word, group in zip(("a file", "a link", "a directory", "absent"), groups):
            for path in group:
                if path in meaning:
                    self.problems.append(f"{path}: is {meaning[path]} and {word} at once; keep one of them")
                meaning[path] = word
        for path, word in meaning.items():
            # Nothing can be below a file anyway, but what is below a link depends on whether the link is there yet.
            allowed = ("a directory", "a file", "absent") if word == "absent" else ("a directory",)
            parent = posixpath.dirname(path)
            while parent:
                if meaning.get(parent, "a directory") not in allowed:
                    self.problems.append(f"{path}: lies below {parent}, which is {meaning[parent]}; remove one of them")
                parent = posixpath.dirname(parent)


def build(params: Mapping[str, Any]) -> Tree:
    """The tree that the module's parameters describe. TreeError lists every problem that is visible without a host."""
    return _Builder(params).build()


# --- comparison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ids:
    """Owner, group and mode as a host knows them. In check mode -1 stands for a user or group that does not exist yet."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Ids:
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


@dataclass(frozen=True)
class Write:
    path: str
    data: bytes
    ids: Ids
    exists: bool
    validate: str | None


@dataclass
class Plan:
    """The difference between a tree and a host, with absolute paths, in the order of execution."""

    make: list[tuple[str, Ids]] = field(default_factory=list)
    directories: list[tuple[str, Ids, Ids]] = field(default_factory=list)
    attributes: list[tuple[str, Ids, Ids]] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    links: list[tuple[str, str, str | None]] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)
    verify: Sequence[str] = ()
    secret: bool = False  # output of commands may quote a secret file, so it is not shown
    leftovers: list[str] = field(default_factory=list)
    changed_paths: list[str] = field(default_factory=list)
    removed_paths: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def paths(self) -> tuple[list[str], list[str]]:
        """Everything that apply() changes; and apart from it the directories of which it changes owner and mode only."""
        made = [path for path, _ids in self.make]
        files = [path for path, _old, _new in self.attributes] + [item.path for item in self.writes] + [link[0] for link in self.links]
        return made + files + self.removals, [path for path, _old, _new in self.directories]

    @property
    def changed(self) -> bool:
        return bool(self.make or self.directories or self.attributes or self.writes or self.links or self.removals)


class NoDirectory(ValueError):
    """Something on the way to a path is no directory, so nothing can be there."""


class Root:
    """A directory of the host as the top of a tree. Whatever lies outside of it is neither read nor written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.real = os.path.realpath(path)
        self._parents: dict[str, tuple[str, bool]] = {"": (self.real, os.path.isdir(self.real))}

    def absolute(self, path: str) -> str:
        return posixpath.join(self.path, path)

    def contains(self, real: str) -> bool:
        return self.real == "/" or real == self.real or real.startswith(self.real + "/")

    def directory(self, path: str) -> tuple[str, bool]:
        """The real path of a directory and whether it exists. Links are followed as far as they stay below root."""
        if path not in self._parents:
            parent, exists = self.directory(posixpath.dirname(path))
            real = posixpath.join(parent, posixpath.basename(path))
            if exists:
                status = lstat(real)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    link, real = real, os.path.realpath(real)
                    if not self.contains(real):
                        raise ValueError(f"lies behind the link {link}, which leaves the root {self.path}; remove the link")
                    if not os.path.isdir(real):
                        raise NoDirectory(f"lies behind the link {link}, which leads to no directory; remove the link")
                elif status is not None and not stat.S_ISDIR(status.st_mode):
                    raise NoDirectory(f"lies below {real}, which is no directory on the host; remove that file or choose another path")
                exists = status is not None
            self._parents[path] = (real, exists)
        return self._parents[path]

    def target(self, path: str) -> tuple[str, os.stat_result | None]:
        """The real path of a file (the file itself not followed) and its status, None when there is nothing."""
        parent, exists = self.directory(posixpath.dirname(path))
        real = posixpath.join(parent, posixpath.basename(path))
        return real, lstat(real) if exists else None


def lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _lookup(value: str, kind: str, check_mode: bool) -> int:
    """The number of a user or group."""
    try:
        return pwd.getpwnam(value).pw_uid if kind == "owner" else grp.getgrnam(value).gr_gid
    except KeyError:
        if value.isdigit():
            return int(value)
        if check_mode:
            return -1
        raise ValueError(
            f"the {kind} {value} does not exist on the host; install the package or write the task that makes it before this task"
        ) from None


def _name(number: int, kind: str) -> str:
    try:
        return pwd.getpwuid(number).pw_name if kind == "owner" else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _executable(word: str) -> str | None:
    return shutil.which(word, path=_SEARCH)


class _Planner:
    def __init__(self, tree: Tree, check_mode: bool) -> None:
        self.tree = tree
        self.check_mode = check_mode
        self.root = Root(tree.root)
        self.plan = Plan(verify=tree.verify, secret=tree.secret)
        self.problems: list[str] = []
        self.seen: dict[str, str] = {}

    @contextlib.contextmanager
    def about(self, path: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            self.problems.append(f"{self.root.absolute(path)}: {_reason(error)}")

    def ids(self, attributes: Attributes) -> Ids:
        return Ids(
            _lookup(attributes.owner, "owner", self.check_mode), _lookup(attributes.group, "group", self.check_mode), attributes.mode
        )

    def command(self, words: Sequence[str]) -> None:
        if not self.check_mode and _executable(words[0]) is None:
            raise ValueError(f"the command {words[0]} does not exist on the host; install its package before this task or correct its path")

    def once(self, path: str, real: str) -> None:
        other = self.seen.setdefault(real, path)
        if other != path:
            raise ValueError(f"is the same place as {self.root.absolute(other)}, through a link; keep one of them")

    def run(self) -> Plan:
        tree, plan = self.tree, self.plan
        if not self.root.directory("")[1] and not self.check_mode:
            raise TreeError([f"root: {tree.root} is no directory on the host; create it before this task"])
        for path in sorted(tree.directories):
            with self.about(path):
                self.plan_listed(path, tree.directories[path])
        for path in sorted(set(self.parents())):
            with self.about(path):
                self.plan_parent(path)
        plan.make.sort(key=lambda entry: entry[0])  # parents first
        for path in sorted(tree.files):
            with self.about(path):
                self.plan_file(path, tree.files[path])
        for path in sorted(tree.links):
            with self.about(path):
                self.plan_link(path, tree.links[path])
        removals: dict[str, str] = {}
        for path in sorted(tree.absent):
            with self.about(path):
                self.plan_removal(path, removals)
        for path in sorted(tree.directories):
            if tree.directories[path].exclusive:
                with self.about(path):
                    self.plan_exclusive(path, tree.directories[path], removals)
        plan.removals = list(removals)
        plan.removed_paths = list(removals.values())
        plan.diff += [_diff(path, "state: present\n", "", " (removed)") for path in plan.removed_paths]
        if plan.changed:
            for command in tree.verify:
                with self.about_command():
                    self.command(shlex.split(command))
        if self.problems:
            raise TreeError(self.problems)
        plan.leftovers = list(self.find_leftovers())
        return plan

    @contextlib.contextmanager
    def about_command(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            self.problems.append(f"verify: {error}")

    def parents(self) -> Iterator[str]:
        for path in (*self.tree.files, *self.tree.links, *self.tree.directories):
            parent = posixpath.dirname(path)
            while parent:
                yield parent
                parent = posixpath.dirname(parent)

    def plan_parent(self, path: str) -> None:
        try:
            real, exists = self.root.directory(path)
        except ValueError:
            return  # reported for what lies in it
        if not exists and real not in self.seen:
            self.seen[real] = path
            self.make(path, real, self.tree.made)

    def plan_listed(self, path: str, listed: Directory) -> None:
        real, exists = self.root.directory(path)
        status = self.root.target(path)[1]
        if status is not None and stat.S_ISLNK(status.st_mode):
            raise ValueError(f"is a link to {real} on the host; list that directory or remove the link")
        self.once(path, real)
        if not exists:
            self.make(path, real, listed.attributes)
        else:
            self.compare(path, real, Ids.of(os.lstat(real)), listed.attributes, self.plan.directories)

    def make(self, path: str, real: str, attributes: Attributes) -> None:
        ids = self.ids(attributes)
        self.plan.make.append((real, ids))
        self.plan.diff.append(_diff(self.root.absolute(path), "", _attributes_text(ids, attributes), " (directory)"))

    def compare(self, path: str, real: str, old: Ids, attributes: Attributes, changes: list[tuple[str, Ids, Ids]]) -> bool:
        """Plans a change of owner, group and mode where they differ."""
        new = self.ids(attributes)
        if old == new:
            return False
        changes.append((real, old, new))
        self.plan.diff.append(_diff(self.root.absolute(path), _attributes_text(old), _attributes_text(new, attributes), " (attributes)"))
        return True

    def plan_file(self, path: str, item: File) -> None:
        real, status = self.root.target(path)
        self.once(path, real)
        if status is not None:
            if stat.S_ISLNK(status.st_mode):
                raise ValueError(f"is a link to {os.readlink(real)} on the host; put that path into the tree or remove the link first")
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"is {_kind(status)} on the host, but a file is due; remove it or choose another path")
            with_content = status.st_size <= max(DIFF_LIMIT, len(item.data))
            old = _read(real) if with_content else None
            if old == item.data:
                if self.compare(path, real, Ids.of(status), item.attributes, self.plan.attributes):
                    self.plan.changed_paths.append(self.root.absolute(path))
                return
            before = old if old is not None else b"\0"
        else:
            before = b""
        ids = self.ids(item.attributes)
        if item.validate is not None:
            self.command(shlex.split(item.validate))
        name = self.root.absolute(path)
        self.plan.writes.append(Write(real, item.data, ids, status is not None, item.validate))
        self.plan.changed_paths.append(name)
        if item.secret:
            self.plan.diff.append(_diff(name, "" if status is None else "(old secret content)\n", "(new secret content)\n"))
        else:
            self.plan.diff.append(_diff(name, _text(before), _text(item.data)))
        old_ids = None if status is None else Ids.of(status)
        if old_ids != ids:
            self.plan.diff.append(
                _diff(name, "" if old_ids is None else _attributes_text(old_ids), _attributes_text(ids, item.attributes), " (attributes)")
            )

    def plan_link(self, path: str, target: str) -> None:
        real, status = self.root.target(path)
        self.once(path, real)
        old = None
        if status is not None:
            if not stat.S_ISLNK(status.st_mode):
                raise ValueError(f"is {_kind(status)} on the host, but a link is due; remove it or choose another path")
            old = os.readlink(real)
            if old == target:
                return
        name = self.root.absolute(path)
        self.plan.links.append((real, target, old))
        self.plan.changed_paths.append(name)
        self.plan.diff.append(_diff(name, "" if old is None else f"-> {old}\n", f"-> {target}\n", " (link)"))

    def plan_removal(self, path: str, removals: dict[str, str]) -> None:
        try:
            real, status = self.root.target(path)
        except NoDirectory:
            return
        if status is None:
            return
        if real in self.seen:
            raise ValueError(f"is to be absent, but is the same place as {self.root.absolute(self.seen[real])}, through a link")
        if not _is_leaf(status):
            raise ValueError(f"is {_kind(status)} on the host; absent removes files and links only")
        removals[real] = self.root.absolute(path)

    def plan_exclusive(self, path: str, item: Directory, removals: dict[str, str]) -> None:
        real, exists = self.root.directory(path)
        for name in sorted(os.listdir(real)) if exists else ():
            child = posixpath.join(real, name)
            if child in self.seen or _SCRATCH.match(name) or any(fnmatch.fnmatchcase(name, pattern) for pattern in item.keep):
                continue
            if _is_leaf(os.lstat(child)):
                removals[child] = self.root.absolute(posixpath.join(path, name))

    def find_leftovers(self) -> Iterator[str]:
        """Files that a run left when it was killed."""
        found: set[str] = set()
        for path in (*self.tree.files, *self.tree.links, *self.tree.absent, *(item + "/x" for item in self.tree.directories)):
            with contextlib.suppress(ValueError, OSError):
                real, exists = self.root.directory(posixpath.dirname(path))
                if exists and real not in found:
                    found.add(real)
                    for name in os.listdir(real):
                        match = _SCRATCH.match(name)
                        if match and not os.path.exists(f"/proc/{match.group(1)}") and _is_leaf(os.lstat(posixpath.join(real, name))):
                            yield posixpath.join(real, name)


def plan(tree: Tree, check_mode: bool = False) -> Plan:
    """Compares a tree with the host and changes nothing. TreeError lists every problem that the host has with it.

    In check mode a missing user, group, command or root is no problem: what provides them may not have been installed yet.
    """
    return _Planner(tree, check_mode).run()


def _kind(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "a directory"
    return "a file" if stat.S_ISREG(status.st_mode) else "a device, pipe or socket"


def _is_leaf(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        hint = "; it is a mount point of its own and cannot be replaced" if error.errno in (errno.EBUSY, errno.EXDEV) else ""
        return f"{error.strerror or error}{hint}"
    return str(error)


def _text(data: bytes) -> str:
    if len(data) > DIFF_LIMIT:
        return f"(content of {len(data)} bytes, too large for a diff)\n"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    return "(content that is no text)\n" if "\0" in text else text


def _attributes_text(ids: Ids, names: Attributes | None = None) -> str:
    owner = _name(ids.uid, "owner") if names is None else names.owner
    group = _name(ids.gid, "group") if names is None else names.group
    return f"owner: {owner}\ngroup: {group}\nmode: {ids.mode:04o}\n"


def _diff(path: str, before: str, after: str, what: str = "") -> dict[str, str]:
    return {"before_header": path + what, "after_header": path + what, "before": before, "after": after}


# --- execution --------------------------------------------------------------------------------------------------------


class _Applier:
    def __init__(self, todo: Plan, proof: Callable[[], str]) -> None:
        self.plan = todo
        self.proof = proof
        self.undo: list[tuple[str, Callable[[], object], str]] = []  # path, action, where the old state is kept
        self.scratch: set[str] = set()
        self.touched: set[str] = set()

    def run(self) -> None:
        for path in self.plan.leftovers:
            with contextlib.suppress(OSError):
                os.unlink(path)
        try:
            self.execute()
        except BaseException as error:
            self.put_back(error)
        for path in list(self.scratch):
            self.drop(path)
        for directory in self.touched:
            _sync(directory)

    def execute(self) -> None:
        for path, ids in self.plan.make:
            with self.about(path):
                os.mkdir(path, 0o700)
                self.undo.append((path, functools.partial(os.rmdir, path), ""))
                self.touched.add(posixpath.dirname(path))
                _set_ids(path, ids)
        self.set_attributes(self.plan.directories)
        staged = [self.stage(item) for item in self.plan.writes]
        self.validate(staged)
        for item, temporary in zip(self.plan.writes, staged):
            with self.about(item.path):
                self.replace(temporary, item.path, item.exists)
        self.set_attributes(self.plan.attributes)
        for path, target, previous in self.plan.links:
            with self.about(path):
                temporary = self.new_scratch(path)
                os.symlink(target, temporary)
                self.replace(temporary, path, previous is not None)
        for path in self.plan.removals:
            with self.about(path):
                self.set_aside(path)
        for command in self.plan.verify if self.plan.changed else ():
            problem = self.command("verify", shlex.split(command))
            if problem is not None:
                raise TreeError([problem])
        if late := self.proof():
            raise TreeError([late])

    @contextlib.contextmanager
    def about(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TreeError([f"{path}: {_reason(error)}"]) from None

    def new_scratch(self, path: str, suffix: str = "") -> str:
        directory, name = posixpath.split(path)
        scratch = f".civitas-{os.getpid()}-{secrets.token_hex(4)}"
        if len(os.fsencode(scratch + name + suffix)) < 255:
            scratch += "." + name + suffix
        self.touched.add(directory)
        scratch = posixpath.join(directory, scratch)
        self.scratch.add(scratch)
        self.undo.append((scratch, functools.partial(self.drop, scratch), ""))
        return scratch

    def drop(self, scratch: str) -> None:
        if scratch in self.scratch:
            self.scratch.discard(scratch)
            with contextlib.suppress(OSError):  # renamed away already; or else the next run removes it
                os.unlink(scratch)

    def set_attributes(self, changes: Sequence[tuple[str, Ids, Ids]]) -> None:
        for path, old, new in changes:
            with self.about(path):
                self.undo.append((path, functools.partial(_set_ids, path, old), ""))
                _set_ids(path, new)

    def stage(self, item: Write) -> str:
        with self.about(item.path):
            path = self.new_scratch(item.path)
            # Not to be read by others before owner and mode are right; not to be led elsewhere by a link.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(item.data)
                stream.flush()
                _set_ids(stream.fileno(), item.ids)
                os.fsync(stream.fileno())
        return path

    def validate(self, staged: Sequence[str]) -> None:
        problems = []
        for item, path in zip(self.plan.writes, staged):
            if item.validate is not None:
                words = [word.replace("%s", path) for word in shlex.split(item.validate)]
                problem = self.command(f"{item.path}: validate", words)
                if problem is not None:
                    problems.append(problem)
        if problems:
            raise TreeError(problems)

    # Each undo is noted before its change, and does no harm if the change did not come about.

    def replace(self, temporary: str, path: str, exists: bool) -> None:
        """Puts a staged file or link in place; what was there before stays at hand under another name until the end."""
        if exists:
            kept = self.new_scratch(path, "~")
            os.link(path, kept, follow_symlinks=False)
            self.undo.append((path, functools.partial(os.rename, kept, path), kept))
            os.rename(temporary, path)
        else:
            self.undo.append((path, functools.partial(_unlink_if_same, path, temporary), ""))
            # Not rename(), which would overwrite what appeared since the comparison.
            os.link(temporary, path, follow_symlinks=False)

    def set_aside(self, path: str) -> None:
        kept = self.new_scratch(path, "~")
        self.undo.append((path, functools.partial(_rename_if_there, kept, path), kept))
        os.rename(path, kept)

    def command(self, name: str, words: Sequence[str]) -> str | None:
        """Runs a command without a shell and returns what was wrong."""
        argv = [_executable(words[0]) or words[0], *words[1:]]
        environment = dict(os.environ, PATH=_SEARCH)
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", env=environment, check=False
            )
        except OSError as error:
            return f"{name}: {words[0]} cannot be run: {_reason(error)}"
        if done.returncode == 0:
            return None
        if self.plan.secret:
            output = "(output not shown: it may quote a secret file of this tree; give the secret files a task of their own to see it)"
        else:
            output = done.stdout.decode("utf-8", "replace").strip()[-OUTPUT_LIMIT:] or "(no output)"
        return f"{name} failed: {shlex.join(words)} ended with {done.returncode}: {output}"

    def put_back(self, error: BaseException) -> NoReturn:
        failures = []
        for path, action, kept in reversed(self.undo):
            try:
                action()
            except OSError as problem:
                self.scratch.discard(kept)
                where = f"; it is kept as {kept}" if kept else ""
                failures.append(f"{path}: could not be put back ({_reason(problem)}){where}; restore it by hand")
        if isinstance(error, Exception) or failures:
            problems = error.problems if isinstance(error, TreeError) else [_reason(error) or type(error).__name__]
            raise TreeError([*problems, *failures], "not all could be put back" if failures else "all was put back") from None
        raise error


def apply(todo: Plan, proof: Callable[[], str] = str) -> None:
    """Carries a plan out. On any error everything is put back and TreeError says what was wrong; no temporary file stays.

    proof is asked at the end for a problem, an empty text stands for none.
    """
    _Applier(todo, proof).run()


def _unlink_if_same(path: str, other: str) -> None:
    status = lstat(path)
    if status is not None and os.path.samestat(status, os.lstat(other)):
        os.unlink(path)


def _rename_if_there(source: str, target: str) -> None:
    if os.path.lexists(source):
        os.rename(source, target)


def _set_ids(path: str | int, ids: Ids) -> None:
    """Sets owner, group and mode of a path or descriptor, as far as they differ. Links are not followed."""
    if isinstance(path, str):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _set_ids(descriptor, ids)
        finally:
            os.close(descriptor)
        return
    status = os.stat(path)
    if (status.st_uid, status.st_gid) != (ids.uid, ids.gid):
        os.chown(path, ids.uid, ids.gid)  # clears set-id bits, hence before chmod
    if stat.S_IMODE(os.stat(path).st_mode) != ids.mode:
        os.chmod(path, ids.mode)


def _sync(directory: str) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
