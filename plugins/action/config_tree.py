# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders the tree on the controller and hands it to the module of the same name, where the options are documented."""

from __future__ import annotations

import difflib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import generate_ansible_template_vars
from ansible_collections.civitas.hosting.plugins.module_utils._config_tree import (
    FILE_KEYS,
    TreeError,
    build,
    check_path,
    encode,
    parse_bool,
)

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core before 2.19 trusts every text

    def trust_as_template(value: str) -> str:
        return value


OPTIONS = (
    *("absent", "directories", "directory_mode", "extra", "files", "group", "links", "mode", "owner", "revert", "root", "src"),
    "verify",
)
EXTRA_KEYS = ("content", "dest", "src", "vars", *FILE_KEYS)


class ActionModule(ActionBase):  # type: ignore[misc]
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            arguments = Renderer(self, dict(task_vars or {})).run(dict(self._task.args))
        except TreeError as error:
            return {**result, "failed": True, "msg": str(error)}
        result.update(self._execute_module("civitas.hosting.config_tree", module_args=arguments, task_vars=task_vars))
        return result


class Renderer:
    """From the task's options to the module's: contents rendered, and every problem named that the controller can see."""

    def __init__(self, action: ActionBase, variables: dict[str, Any]) -> None:
        self.loader = action._loader
        self.templar = action._templar
        self.find = action._find_needle
        self.variables = variables
        self.root = "/"
        self.problems: list[str] = []
        self.contents: dict[str, str] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        bases = [*variables.get("ansible_search_path", ()), self.loader.get_basedir()]
        self.search = [path for base in bases for path in (os.path.join(base, "templates"), base)]

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        for key in options:
            if key not in OPTIONS:
                self.problems.append(f"{key}: no such option{suggest(key, OPTIONS)}; known are {', '.join(OPTIONS)}")
        if isinstance(options.get("root"), str):
            self.root = options["root"]
        self.tree(options.get("src"), options.get("files"))
        self.extra(options.get("extra"))
        arguments = {key: value for key, value in options.items() if key in OPTIONS and key not in ("src", "extra")}
        arguments.update(files=self.attributes, contents=self.contents)
        try:
            build(arguments)
        except TreeError as error:
            self.problems += error.problems
        if self.problems:
            raise TreeError(list(dict.fromkeys(self.problems)))
        return arguments

    def tree(self, src: Any, files: Any) -> None:
        if files is None:
            files = {}
        if not isinstance(files, Mapping):
            self.problems.append("files: a mapping is expected, from paths relative to root to attributes")
            files = {}
        sources: dict[str, str] = {}
        for source, target in self.walk(src):
            if target in sources:
                first, second = sorted(os.path.relpath(path, os.path.dirname(source)) for path in (sources[target], source))
                self.problems.append(f"{target}: has two sources, {first} and {second}; remove one of them")
            else:
                sources[target] = source
        for path in files:
            if path not in sources:
                known = suggest(path, sources) or "; remove it here, or add the file to src"
                self.problems.append(f"{path}: is listed in files, but the tree has no such file{known}")
        for target, source in sources.items():
            options = files.get(target)
            if self.take(target, options):
                self.put(target, source, {}, options)

    def walk(self, src: Any) -> Iterator[tuple[str, str]]:
        """Pairs of a file on the controller and its path relative to root."""
        if src is None:
            return
        try:
            if not isinstance(src, str):
                raise AnsibleError("the path of a directory is expected")
            top = src if os.path.isabs(src) else self.find("templates", src)
            if not os.path.isdir(top):
                raise AnsibleError(f"{top} is no directory on the controller; name the directory that has the shape of the target")
        except AnsibleError as error:
            self.problems.append(f"src: {error.message}")
            return
        for directory, directories, names in os.walk(top):
            directories.sort()
            for name in sorted([*names, *(entry for entry in directories if os.path.islink(os.path.join(directory, entry)))]):
                source = os.path.join(directory, name)
                relative = os.path.relpath(source, top)
                try:
                    if os.path.islink(source):
                        raise ValueError("is a symbolic link in src; use links for a link on the host, or extra for a template used twice")
                    yield source, self.target(relative)
                except ValueError as error:
                    self.problems.append(f"{relative}: {error}")

    def target(self, relative: str) -> str:
        parts = []
        for part in relative.split("/"):
            rendered = part
            if "{{" in part or "{%" in part:
                rendered = self.render(part, self.variables)
            if not rendered or "/" in rendered or rendered in (".", ".."):
                raise ValueError(f"the part {part!r} of the path becomes {rendered!r}, which is no name; correct the variables in it")
            parts.append(rendered)
        parts[-1] = parts[-1].removesuffix(".j2")
        return check_path("/".join(parts))

    def extra(self, items: Any) -> None:
        if items is None:
            return
        if isinstance(items, (str, Mapping)):
            self.problems.append("extra: a list of mappings is expected")
            return
        for number, item in enumerate(items, 1):
            name = f"extra, item {number}"
            try:
                if not isinstance(item, Mapping):
                    raise ValueError("a mapping is expected, of " + ", ".join(EXTRA_KEYS))
                for key in item:
                    if key not in EXTRA_KEYS:
                        raise ValueError(f"no such option {key!r}{suggest(key, EXTRA_KEYS)}; known are {', '.join(EXTRA_KEYS)}")
                name = str(item.get("dest") or name)
                self.extra_item(check_path(item.get("dest")), item)
            except ValueError as error:
                self.problems.append(f"{name}: {error}")

    def extra_item(self, target: str, item: Mapping[str, Any]) -> None:
        src, content, variables = item.get("src"), item.get("content"), item.get("vars")
        if (src is None) == (content is None):
            raise ValueError("an item of extra has either src or content; write one of them")
        if variables is not None and not isinstance(variables, Mapping):
            raise ValueError("vars is no mapping of names to values")
        options = {key: value for key, value in item.items() if key in FILE_KEYS}
        if not self.take(target, options):
            return
        if content is not None:
            self.contents[target] = encode(text(content, "content").encode())
            return
        try:
            source = self.find("templates", src)
        except AnsibleError as error:
            raise ValueError(f"src: {error.message}") from None
        self.put(target, source, dict(variables or {}), options)

    def take(self, target: str, options: Any) -> bool:
        """Notes the attributes of a file and says whether it is part of the tree. One that is switched off gives way to another."""
        enabled = options.get("enabled") if isinstance(options, Mapping) else None
        try:
            wanted = enabled is None or parse_bool(enabled, "enabled")
        except ValueError as error:
            self.problems.append(f"{target}: {error}")
            return False
        if target in self.attributes and self.is_wanted(target):
            if wanted:
                self.problems.append(f"{target}: has two sources, in src and extra or twice in extra; remove one of them")
            return False
        # None stands for an attribute that was left out; the module's own checks name everything else.
        self.attributes[target] = dict(options) if isinstance(options, Mapping) else options
        if wanted:
            self.contents[target] = encode(b"")  # not to be reported as missing, too, when it cannot be rendered
        return wanted

    def is_wanted(self, target: str) -> bool:
        options = self.attributes[target]
        return not isinstance(options, Mapping) or options.get("enabled") is None or parse_bool(options["enabled"], "enabled")

    def put(self, target: str, source: str, variables: dict[str, Any], options: Any) -> None:
        """Renders or reads one source."""
        try:
            data = self.read(source)
            if source.endswith(".j2"):
                try:
                    template = data.decode()
                except UnicodeDecodeError as error:
                    raise ValueError(f"is not UTF-8 (byte {error.start + 1}); convert it, or remove .j2 to copy it as it is") from None
                context = {**self.variables, **self.template_variables(source, target), **variables}
                data = self.render(template, context, source, secret=hides(options)).encode()
            self.contents[target] = encode(data)
        except (ValueError, AnsibleError, OSError) as error:
            reason = error.message if isinstance(error, AnsibleError) else error
            self.problems.append(f"{target}: {os.path.basename(source)}: {reason}")

    def read(self, source: str) -> bytes:
        """The bytes of a file, decrypted where it is a vault."""
        real = self.loader.get_real_file(source)
        try:
            with open(real, "rb") as stream:
                return stream.read()
        finally:
            self.loader.cleanup_tmp_file(real)

    def template_variables(self, source: str, target: str) -> dict[str, Any]:
        values: dict[str, Any] = generate_ansible_template_vars(posixpath.basename(source), source, posixpath.join(self.root, target))
        if "ansible_managed" in self.variables:
            del values["ansible_managed"]
        return values

    def render(self, template: str, variables: dict[str, Any], source: str = "", secret: bool = False) -> str:
        """The text that a template becomes. ValueError says which variable or line is wrong."""
        search = [*self.search, os.path.dirname(source)] if source else self.search
        templar = self.templar.copy_with_new_env(searchpath=search, available_variables=variables)
        # Before 2.19 template() makes lists and mappings of texts that look like one; do_template() does not.
        render = templar.template if hasattr(templar, "evaluate_expression") else templar.do_template
        try:
            value = render(trust_as_template(template), escape_backslashes=False)
            # A template that is but one expression gives its value as it is, without the newline that follows it.
            lost = 0 if isinstance(value, str) else len(template) - len(template.rstrip("\n"))
            return text(value, "the whole") + "\n" * lost
        except Exception as error:  # filters, tests and lookups raise what they like
            raise ValueError(explain(error, template, secret)) from None


def text(value: Any, what: str) -> str:
    """What templating gave, as the text that it stands for in a file."""
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    kind = "a mapping" if isinstance(value, Mapping) else "a list"
    raise ValueError(f"{what} becomes {kind} and not a text; add a filter such as to_nice_yaml")


def hides(options: Any) -> bool:
    """Whether a file is secret; in doubt it is."""
    secret = options.get("secret") if isinstance(options, Mapping) else None
    try:
        return secret is not None and parse_bool(secret, "secret")
    except ValueError:
        return True


def explain(error: Exception, template: str, secret: bool) -> str:
    """Message and line of an error in a template. The message of a secret one may quote a value: only undefined names are passed on."""
    message = str(getattr(error, "message", error)).split(". String: ", maxsplit=1)[0]  # ansible-core before 2.19 adds the whole template
    undefined = re.search(r"'([^']+)' is undefined|has no attribute '([^']+)'", message)
    line = None
    cause: BaseException | None = error
    while cause is not None and line is None:
        line, name = getattr(cause, "lineno", None), getattr(cause, "filename", None)
        if line is not None and name:
            line = f"{line} of {os.path.basename(name)}"  # of a template that is included
        cause = cause.__cause__ or cause.__context__
    if line is None and undefined:
        # The engine does not say where; the first place that has the name is where a person would look.
        word = re.compile(rf"\b{re.escape(undefined.group(1) or undefined.group(2))}\b")
        line = next((number for number, content in enumerate(template.splitlines(), 1) if word.search(content)), None)
    if secret:
        hidden = f"cannot be rendered ({type(error).__name__}; details are not shown, as the file is secret)"
        message = undefined.group(0) if undefined else hidden
    return f"{message}, line {line}" if line else message


def suggest(word: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(word), list(known), 1)
    return f"; do you mean {near[0]}?" if near else ""
