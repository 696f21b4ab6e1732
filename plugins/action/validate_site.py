# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
import re
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.civitas.hosting.plugins.module_utils import (
    _acme_preflight,
    _alert_receivers,
    _alert_rules,
    _alert_secrets,
    _backup_preflight,
    _copy_preflight,
    _declarations,
    _docker_preflight,
    _drill_preflight,
    _firewall_model,
    _login_preflight,
    _mail_preflight,
    _monitoring_preflight,
    _monitoring_server_preflight,
    _people,
    _policy,
    _postgres_objects,
    _secrets,
    _site_roles,
    _site_rules,
    _store_preflight,
    _volume_preflight,
    _webhook,
)
from ansible_collections.civitas.hosting.plugins.module_utils._site_rules import Problem
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca, _internal_ca_run, _secrets_run, _site_certificate

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # ansible-core before 2.19
    Origin = None

_ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles")
# What the preflight of the role docker judges and no fact decides.
_DOCKER = ("source", "repository_url", "repository_key_file", "bridge_address", "address_pools")
# What the preflight of the role certificates judges.
_ACME = ("directory", "accept_terms", "email", "ca_file", "eab_kid", "eab_hmac_key")
_ACME_DNS = ("dns_server", "dns_key_name", "dns_key_secret", "dns_key_algorithm")
_INTERNAL_CA = (
    *("internal", "common_name", "ca_site_names", "ca_permitted_names", "lifetime_days", "renew_before_days", "revoked"),
    *("root_file", "controller_ca_file"),
)
# What the preflights of the roles access and firewall judge, and which of these come from site-wide variables of the same end.
_PEOPLE = ("people", "automation", "automation_anywhere", "permit_root_automation", "break_glass", "operator_commands")
_ANNOUNCE = ("smtp", "webhook", "automation", "automation_minutes", "host", "record_weeks")
# What the preflight of the role mail_relay judges, and where that is written in the site-wide variables.
_MAIL = (
    *("smarthost", "sender", "allowed_senders", "root_to", "hostname", "listen_addresses", "client_networks", "message_megabytes"),
    *("minimum_free_megabytes", "queue_days", "seconds_between_messages", "client_messages_per_minute", "alert_minutes"),
    *("alert_messages", "webhook", "metrics_directory", "dkim"),
)
_MAIL_NAMES = {
    "mail_relay_smarthost": "civitas_mail",
    "mail_relay_sender": "civitas_mail.sender",
    "mail_relay_allowed_senders": "civitas_mail.allowed_senders",
    "mail_relay_root_to": "civitas_mail.to",
    "mail_relay_dkim": "civitas_mail.dkim",
    "mail_relay_webhook": "civitas_mail_webhook",
}
# What the preflight of the role monitoring judges, and where that is written in the site-wide variables.
_MONITORING = (
    *("host_name", "targets", "probes", "interval", "ca_file", "client_certificate", "retention_days", "retention_share", "mail_from"),
    *("runbooks", "bridge_port", "heartbeat_url", "heartbeat_minutes", "page_name", "page_users"),
)
_MONITORING_NAMES = {
    f"monitoring_{name}": f"civitas_monitoring.{site}"
    for name, site in (("probes", "probes"), ("runbooks", "runbooks"), ("heartbeat_url", "heartbeat_secret"), ("page_name", "page_name"))
}
# What the preflights of the roles backup, backup_store and backup_copy judge.
_BACKUP = (
    *("host", "recipients", "target_address", "target_port", "target_host_keys", "ssh_options", "bandwidth_kib", "files", "postgres"),
    *("commands", "late_hours", "full_days", "minimum_free_megabytes"),
)
_BACKUP_STORE = ("hosts", "directory", "port", "listen_addresses", "minimum_free_megabytes", "verify_sets", "late_hours")
_BACKUP_COPY = ("hosts", "target_address", "target_port", "target_host_keys", "ssh_options", "bandwidth_kib", "late_hours")
_BACKUP_NAMES = {
    "backup_recipients": "civitas_backup.recipients",
    "backup_bandwidth_kib": "civitas_backup.bandwidth_kib",
    "backup_store_directory": "civitas_backup.directory",
    "backup_store_hosts": "civitas_backup",
    "backup_copy_bandwidth_kib": "civitas_backup_copy.bandwidth_kib",
    "backup_copy_hosts": "civitas_backup",
}
# What the preflight of the role restore_drill judges, where a host does it by itself.
_DRILL = (
    *("hosts", "host", "environment", "own_sets", "target_address", "target_port", "target_host_keys", "ssh_options", "late_hours"),
    *("keep_reports", "minimum_free_megabytes", "memory_megabytes", "postgres_settings", "anonymise", "logins"),
    *("health", "health_minutes"),
)
_DRILL_NAMES = {"restore_drill_hosts": "civitas_restore_drill", "restore_drill_schedule": "civitas_restore_drill.schedule"}
# What the preflight of the role data_volume judges, and where that is written in the site-wide variables.
_VOLUME = ("device", "path", "filesystem", "encryption", "swap_size", "directories")
_VOLUME_NAMES = {
    **{f"data_volume_{name}": f"civitas_data_volume.{name}" for name in (*_VOLUME[:-1], "initialize")},
    "data_volume_directories": "civitas_data_volume",
}
_WRITTEN_AS = {**_MAIL_NAMES, **_MONITORING_NAMES, **_BACKUP_NAMES, **_DRILL_NAMES, **_VOLUME_NAMES}


class _Given(t.NamedTuple):
    """A secret that others gave: the site-wide variable that names it, the role's variable that holds it, by which keys, where the play
    looks it up, and what stands there while the inventory is judged.
    """

    site: str
    role: str
    names_it: str
    key: str
    lookup: str
    stand_in: str


_GIVEN_URL, _GIVEN_PASSWORD, _GIVEN_PAGE = "https://secret.invalid/", "secret", "of twelve or more"
_GIVEN_PASSPHRASE = "of sixteen or more"
_GIVEN_SECRETS = (
    _Given("civitas_announce_smtp", "access_announce_smtp", "password_secret", "password", "__civitas_announce_password", _GIVEN_PASSWORD),
    _Given("civitas_announce_webhook", "access_announce_webhook", "url_secret", "url", "__civitas_announce_url", _GIVEN_URL),
    _Given("civitas_mail", "mail_relay_smarthost", "password_secret", "password", "__civitas_mail_password", _GIVEN_PASSWORD),
    _Given("civitas_mail_webhook", "mail_relay_webhook", "url_secret", "url", "__civitas_mail_url", _GIVEN_URL),
)
# What playbooks are asked with (-e) that run the site's validation, and no option of a role though it looks like one.
_OF_PLAYBOOKS = frozenset(
    f"restore_{name}"
    for name in (
        *("key_file", "store", "set", "before", "from_host", "only", "incomplete", "all_files", "confirm", "list", "undo", "wait_hours"),
        "health_minutes",
    )
)
_FIREWALL = ("ports", "admin_networks", "peers", "monitoring", "public_networks", "container_interfaces", "ssh_port")
_SITE_NAMES = re.compile(r"\b(?:access_(people|automation|break_glass|announce_smtp|announce_webhook)|firewall_(admin_networks))\b")
_CONNECTION = ("ansible_connection", "ansible_host", "ansible_port", "ansible_user")


class _Role(t.NamedTuple):
    name: str
    options: t.Dict[str, t.Any]
    defaults: t.Dict[str, t.Any]
    variables: t.Dict[str, t.Any]
    # Names that depend on the host's release.
    platform_names: t.FrozenSet[str]
    declarations: t.Dict[str, t.Any]


class _Target(t.NamedTuple):
    """A host with the variables that its roles will see, unrendered, and what renders them.

    The variables of the templar are the same, with the values of those that were rendered already.
    """

    host: _site_rules.Host
    own: t.Dict[str, t.Any]
    variables: t.Dict[str, t.Any]
    templar: t.Any
    roles: t.List[_Role]


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self.validate_argument_spec(
            argument_spec={
                "roles": {"type": "raw", "required": True},
                "computed_files": {"type": "list", "elements": "str", "default": []},
                "generate_secrets": {"type": "bool", "default": False},
            }
        )[1]
        self._vars = task_vars
        self._problems: t.List[Problem] = []
        self._waived: t.Set[str] = set()
        self._notes: t.List[str] = []
        self._checked = 0
        self._options: t.Dict[str, t.List[str]] = {}
        computed = self._computed(args["computed_files"])
        targets = self._targets(_group_roles(args["roles"]), computed)
        self._judge(targets, _group_roles(args["roles"]))
        self._settle(targets)
        for target in targets:
            self._judge_roles(target, computed)
            self._judge_ports(target)
            self._judge_artifacts(target)
            self._judge_hsts(target)
            self._judge_docker(target)
            self._judge_acme(target)
            self._judge_internal_ca(target)
            self._judge_access(target)
            self._judge_announcement(target)
            self._judge_mail(target)
            self._judge_alarms(target)
            self._judge_monitoring(target, targets)
            self._judge_heartbeat(target, targets)
            self._judge_backup(target, targets)
            self._judge_drill(target)
            self._judge_volume(target)
            self._judge_firewall(target)
        notes = self._notes + self._judge_certificate(targets)
        present, generated = self._judge_secrets(targets, args["generate_secrets"])

        hosts = [target.host.name for target in targets]
        problems = _site_rules.merge(self._problems, hosts)
        result.update(
            changed=bool(generated), problems=[problem._asdict() for problem in problems], generated_secrets=generated, notes=notes
        )
        for note in notes:
            self._display.warning(note)
        if problems:
            result.update(failed=True, msg=_site_rules.report(problems))
            if Origin is None:
                # ansible-core 2.19 prints the message of a failure as text, earlier releases only inside the result.
                self._display.display(result["msg"], color=constants.COLOR_ERROR)
        else:
            name = ", ".join(_short(source) for source in task_vars.get("ansible_inventory_sources") or [])
            count = f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"
            new = f" ({len(generated)} of them new)" if generated else ""
            result["msg"] = f"Inventory {name} is valid: {count}, {self._checked} variables checked, {present} secrets present{new}"
            result["_ansible_verbose_always"] = True
        return result

    # What there is.

    def _load(self, path: str) -> t.Dict[str, t.Any]:
        if not os.path.exists(path):
            return {}
        # Read anew, and not copied: that would take longer than reading it.
        try:
            # ansible-core 2.19 renders only what is marked as trusted; earlier releases do not know the argument.
            data = self._loader.load_from_file(path, cache="none", unsafe=True, trusted_as_template=True)
        except TypeError:
            data = self._loader.load_from_file(path, cache="none", unsafe=True)
        return data if isinstance(data, dict) else {}

    def _computed(self, files: t.List[str]) -> t.Dict[str, t.Any]:
        computed: t.Dict[str, t.Any] = {}
        for path in files:
            computed.update(self._load(os.path.join(self._vars["playbook_dir"], path)))
        return computed

    def _role(self, name: str) -> t.Optional[_Role]:
        path = os.path.join(_ROLES, name)
        if "/" in name or not name or not os.path.isdir(path):
            return None
        folder = os.path.join(path, "vars")
        files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        platform = {key for file in files if file != "main.yml" and file.endswith(".yml") for key in self._load(os.path.join(folder, file))}
        return _Role(
            name=name,
            options=self._role_options(name),
            defaults=self._load(os.path.join(path, "defaults", "main.yml")),
            variables=self._load(os.path.join(folder, "main.yml")),
            platform_names=frozenset(platform),
            declarations=self._load(os.path.join(path, "meta", "declarations.yml")),
        )

    def _role_options(self, name: str) -> t.Dict[str, t.Any]:
        document = self._load(os.path.join(_ROLES, name, "meta", "argument_specs.yml"))
        entry = (document.get("argument_specs") or {}).get("main") or {}
        return dict(entry.get("options") or {})

    def _targets(self, group_roles: t.Dict[str, t.List[str]], computed: t.Dict[str, t.Any]) -> t.List[_Target]:
        groups = self._vars["groups"]
        member = {name: [group for group, names in groups.items() if name in names] for name in groups["all"]}
        roles: t.Dict[str, _Role] = {}
        for name in sorted({name for names in group_roles.values() for name in names}):
            role = self._role(name)
            if role:
                roles[name] = role
            elif not name.startswith("app_"):
                raise AnsibleActionFail(f"There is no role '{name}'. Name roles of this collection in 'roles'.")
        targets = []
        for name in groups["all"]:
            own = dict(self._vars["hostvars"].raw_get(name))
            names = _site_rules.roles_of(group_roles, member[name], own)
            targets.append(self._target(name, own, [roles[role] for role in names if role in roles], computed))
        return targets

    def _target(self, name: str, own: t.Dict[str, t.Any], roles: t.List[_Role], computed: t.Dict[str, t.Any]) -> _Target:
        variables: t.Dict[str, t.Any] = {}
        for role in roles:
            variables.update(role.defaults)
        variables.update(own)
        variables.update(computed)
        for role in roles:
            variables.update(role.variables)
        variables["hostvars"] = self._vars["hostvars"]
        templar = self._templar.copy_with_new_env(available_variables=variables)
        values = {}
        for variable in sorted(own):
            if variable.startswith(_site_rules.PREFIX) or variable in _CONNECTION:
                self._checked += 1
                try:
                    values[variable] = templar.template(own[variable])
                except Exception as error:  # a template may raise anything
                    self._add_unrendered(name, variable, own[variable], variables, error)
        host = _site_rules.Host(name=name, groups=own.get("group_names") or [], names=frozenset(own), values=values)
        return _Target(host=host, own=own, variables=variables, templar=templar, roles=roles)

    # Judgement.

    def _add(self, problems: t.Iterable[Problem], own: t.Optional[t.Dict[str, t.Any]] = None) -> None:
        for problem in problems:
            source = _source((own or {}).get(problem.variable))
            self._problems.append(problem._replace(source=source) if source else problem)

    def _add_unrendered(self, host: str, variable: str, raw: t.Any, variables: t.Dict[str, t.Any], error: Exception) -> None:
        words = _site_roles.mentions(raw, variables)
        text = "" if words & {_site_roles.SECRET, _site_roles.VAULT} else f": {_site_roles.plain(str(error))}"
        remedy = "Define what it refers to, or write a plain value."
        self._add([Problem(host, variable, f"cannot be rendered{text}", remedy)], {variable: raw})

    def _judge(self, targets: t.List[_Target], group_roles: t.Dict[str, t.List[str]]) -> None:
        """The site-wide variables and the shape of the inventory."""
        applications = sorted(name[4:] for name in os.listdir(_ROLES) if name.startswith("app_")) if os.path.isdir(_ROLES) else []
        known = _site_rules.site_variables(applications)
        hosts = [target.host for target in targets]
        self._add(_site_rules.check_hosts_exist(hosts))
        self._add(_site_rules.check_groups(group_roles, self._vars["groups"]))
        tier = next((host.values["civitas_tier"] for host in hosts if "civitas_tier" in host.values), None)
        self._add(_site_rules.check_single_purpose(hosts))
        self._add(_site_rules.check_single_server(tier, [target.host for target in targets if target.roles]))
        self._add(_site_rules.check_needed_groups(tier, [target.host for target in targets if target.roles]))
        self._add(_site_rules.check_backup_host(hosts))
        self._add(_site_rules.check_drills(hosts))
        self._add(_site_rules.check_cluster_addresses(hosts))
        self._add(_site_rules.check_addresses(hosts))
        self._add(_site_rules.check_heartbeats(hosts))
        for target in targets:
            roles = [role.name for role in target.roles]
            self._add(_site_rules.check_variables_of_roles(target.host, roles), target.own)
            self._add(_site_rules.check_site_variables(target.host, known), target.own)
            self._add(_site_rules.check_unknown_site_names(target.host, known), target.own)
            self._add(_site_rules.check_aliases(target.host), target.own)
            self._add(_site_rules.check_control_node(target.host), target.own)
            self._add(_site_rules.check_bastion(target.host, hosts), target.own)
            self._add(_site_rules.check_probe_hosts(target.host, hosts), target.own)
            self._add(_site_rules.check_environment(target.host, roles), target.own)
            self._add(_site_rules.check_certificate_variables(target.host, known), target.own)
        self._add(_site_rules.check_same_everywhere(hosts, known))

    def _judge_roles(self, target: _Target, computed: t.Dict[str, t.Any]) -> None:
        """The variables of the roles that run on a host."""
        host = target.host.name
        told = {name: "from civitas_ variables and the roles' declarations" for name in computed if not name.startswith("__")}
        self._add([problem._replace(where=host) for problem in _site_roles.check_computed(target.own, told)], target.own)
        if not self._options:
            names = sorted(os.listdir(_ROLES)) if os.path.isdir(_ROLES) else []
            self._options.update({name: list(self._role_options(name)) for name in names})
        known = {name: options for name, options in self._options.items() if options}
        own = [name for name in target.own if name not in _OF_PLAYBOOKS]
        self._add([problem._replace(where=host) for problem in _site_roles.check_unknown(own, known)], target.own)
        for role in target.roles:
            for option, spec in role.options.items():
                self._checked += 1
                if option not in target.variables:
                    slips = [name for name in target.own if name not in self._known_names()]
                    finding = _site_roles.check_missing(option, spec, slips)
                    if finding:
                        self._add([Problem(host, option, *finding)])
                else:
                    self._judge_option(target, role, option, spec)

    def _judge_option(self, target: _Target, role: _Role, option: str, spec: t.Dict[str, t.Any]) -> None:
        raw = target.variables[option]
        words = _site_roles.mentions(raw, target.variables)
        # Rendering it would generate the secret.
        if _site_roles.SECRET in words:
            return
        try:
            value = _value(target, option)
        except Exception as error:  # a template may raise anything
            if not self._explained(target, words):
                self._add_unrendered(target.host.name, option, raw, target.variables, error)
            return
        may_be_empty = option in role.defaults and role.defaults[option] is None
        finding = _site_roles.check_option(option, spec, value, secret=_site_roles.VAULT in words, may_be_empty=may_be_empty)
        if finding:
            # Told by the name that people wrote, which then is no line of the play's.
            self._add([Problem(target.host.name, _WRITTEN_AS.get(option, option), *finding)], {option: raw})

    def _known_names(self) -> t.Set[str]:
        return {option for options in self._options.values() for option in options}

    def _explained(self, target: _Target, words: t.Set[str]) -> bool:
        """Is it no wonder that a value cannot be rendered: it needs the host, or a variable that was reported already?"""
        platform = frozenset().union(*(role.platform_names for role in target.roles))
        reported = {problem.variable for problem in self._problems if problem.where in (target.host.name, "all hosts")}
        return _site_roles.needs_host(words, platform, frozenset(target.own)) or bool(words & reported)

    def _declared(self, target: _Target, kind: str) -> t.List[t.Dict[str, t.Any]]:
        """The items that the roles of a host declare; what cannot be rendered becomes a problem."""
        items: t.List[t.Dict[str, t.Any]] = []
        for role in target.roles:
            if kind not in role.declarations:
                continue
            lookup = lookup_loader.get("civitas.hosting.declarations", loader=self._loader, templar=target.templar)
            try:
                items.extend(lookup.run([role.name], variables=target.templar.available_variables, kind=kind)[0])
            except AnsibleError as error:
                if not self._explained(target, _site_roles.mentions(role.declarations[kind], target.variables)):
                    text = _site_roles.plain(str(error))
                    self._add(
                        [
                            Problem(
                                target.host.name,
                                f"role {role.name}",
                                f"declares {kind} that cannot be used: {text}",
                                "Correct its variables.",
                            )
                        ]
                    )
        return items

    def _judge_ports(self, target: _Target) -> None:
        self._add(_site_rules.check_ports(target.host.name, self._declared(target, "ports")))

    def _judge_artifacts(self, target: _Target) -> None:
        for item in self._declared(target, "artifacts"):
            self._add(_site_rules.check_artifact(target.host.name, str(item["name"]), item["file"], item["sha256"]), target.own)

    def _judge_hsts(self, target: _Target) -> None:
        values = self._rendered(target, ["nginx_hsts_max_age"]) if "civitas_environment" in target.host.values else None
        if values:
            environment = target.host.values["civitas_environment"]
            self._add(_site_rules.check_hsts(target.host.name, environment, values["nginx_hsts_max_age"]), target.own)

    def _judge_docker(self, target: _Target) -> None:
        """The networks and sources of the container engine, as far as they are wrong on any host."""
        values = self._rendered(target, [f"docker_{name}" for name in _DOCKER])
        if not values:
            return
        # The plugin's file is a declared artifact, and whether the release has a package only the host can tell.
        config = {"compose_packaged": True, "compose_plugin_file": "", "compose_plugin_sha256": ""}
        config.update({name: values[f"docker_{name}"] for name in _DOCKER}, bridge_address=str(values["docker_bridge_address"]))
        try:
            found = _docker_preflight.problems(config, {})
        except (AttributeError, KeyError, TypeError, ValueError):
            advice = "Write a list such as [{base: 172.30.128.0/17, size: 24}]."
            self._add([Problem(target.host.name, "docker_address_pools", "has another shape than the role can use", advice)], target.own)
            return
        self._add_sentences(target, found, "put the file there, or correct the path")

    def _judge_access(self, target: _Target) -> None:
        """Who would get in."""
        values = self._rendered(target, [f"access_{name}" for name in _PEOPLE])
        if values:
            self._add_way_in(target, _people.problems_of({name: values[f"access_{name}"] for name in _PEOPLE}))
        self._judge_exceptions(target)

    def _stand_in(self, target: _Target) -> None:
        """Put something harmless where given secrets are looked up: what is rendered here needs none, and may be shown."""
        reported = {problem.variable for problem in self._problems if problem.where == target.host.name}
        for given in _GIVEN_SECRETS:
            target.variables[given.lookup] = given.stand_in
            if given.site in reported:
                target.variables[given.role] = {}  # told already
        target.templar.available_variables = target.variables
        receivers = self._receivers(target)
        target.variables["__civitas_alert_secrets"] = dict.fromkeys(_alert_secrets.names(receivers or []), _GIVEN_URL)
        if receivers is None:
            target.variables["monitoring_agent_receivers"] = []  # told already
        target.variables["__civitas_heartbeat_url"] = target.variables["__civitas_own_heartbeat_url"] = _GIVEN_URL
        target.variables["__civitas_data_volume_passphrase"] = _GIVEN_PASSPHRASE
        watched = target.host.values.get("civitas_monitoring")
        users = watched.get("page_users") if isinstance(watched, dict) else None
        target.variables["__civitas_page_passwords"] = {str(user): _GIVEN_PAGE for user in users or []}
        target.templar.available_variables = target.variables

    def _settle(self, targets: t.List[_Target]) -> None:
        """Render each variable that roles use once for each host, for all templates that refer to it.

        Ansible compiles and renders a template anew wherever its variable is mentioned, and a few are mentioned by nearly all others.
        """
        seen: t.Dict[str, t.Dict[str, t.Any]] = {}
        for target in targets:
            self._stand_in(target)
            seen[target.host.name] = {**target.variables, _declarations.JUDGED: seen}
            target.templar.available_variables = seen[target.host.name]
        ordered = [_used(target) for target in targets]
        # What roles of one host declare another one may ask for, so all hosts have the rest before.
        for group in (0, 1):
            for target, names in zip(targets, ordered):
                for name in names[group]:
                    try:
                        # What was rendered is no template, whatever it looks like.
                        seen[target.host.name][name] = wrap_var(_value(target, name))
                    except Exception:  # a template may raise anything; it is told where the variable is judged
                        continue

    def _receivers(self, target: _Target) -> t.Optional[t.List[t.Dict[str, t.Any]]]:
        """Who hears alarms, without secrets; V(None) when what decides that was reported already."""
        reported = {problem.variable for problem in self._problems if problem.where == target.host.name}
        if reported & {"civitas_alert_receivers", "civitas_mail", "civitas_mail_webhook", "civitas_announce_webhook"}:
            return None
        values = self._rendered(target, ["__civitas_receivers"])
        return values["__civitas_receivers"] if values else None

    def _with_given(self, target: _Target, role_variable: str, value: t.Any) -> t.Any:
        """The value of a role's variable with the secret that others gave, when the secrets file has it."""
        for given in _GIVEN_SECRETS:
            if given.role == role_variable and isinstance(value, dict) and value.get(given.key) == given.stand_in:
                secret = self._given_secret(target, given.site, given.names_it)
                value = {**value, given.key: given.stand_in if secret is None else secret}
        return value

    def _judge_announcement(self, target: _Target) -> None:
        """Who would be told of logins, with the secrets that others gave."""
        values = self._rendered(target, [f"access_announce_{name}" for name in _ANNOUNCE])
        if not values:
            return
        config = {name: self._with_given(target, f"access_announce_{name}", values[f"access_announce_{name}"]) for name in _ANNOUNCE}
        self._add_way_in(target, _login_preflight.problems(config))
        policy = _site_rules.policy_of(target.host)
        if policy and policy.may_hold_personal_data and not (config["smtp"] or config["webhook"]):
            advice = "write civitas_mail, civitas_announce_smtp or civitas_announce_webhook"
            self._notes.append(f"Nobody is told who logs in to {target.host.name}; {advice}.")

    def _judge_mail(self, target: _Target) -> None:
        """By which way mail would leave, with the secrets that others gave."""
        policy = _site_rules.policy_of(target.host)
        if "mail_relay_smarthost" not in target.variables:
            return  # a tier without mail
        if "civitas_mail" not in target.host.names:
            if policy and policy.may_hold_personal_data:
                self._notes.append(f"Mail of {target.host.name} and its applications goes nowhere; write civitas_mail.")
            return
        reported = {problem.variable for problem in self._problems if problem.where == target.host.name}
        values = self._rendered(target, [f"mail_relay_{name}" for name in _MAIL])
        if not values or "civitas_mail" in reported:
            return
        config = {name: self._with_given(target, f"mail_relay_{name}", values[f"mail_relay_{name}"]) for name in _MAIL}
        found = [_as_written(text) for text in _mail_preflight.problems(config)]
        # What the announcements' webhook lends is judged with them.
        if "civitas_mail_webhook" not in target.host.names:
            found = [text for text in found if not text.startswith("civitas_mail_webhook")]
        self._add_sentences(target, [_naming_the_secret(text) for text in found], "correct it")
        waived = {waiver.rule for waiver in _policy.waivers_of(target.host.values.get("civitas_waivers"))}
        finding = _policy.check_mail(policy, bool(config["webhook"]), waived) if policy else None
        if finding:
            self._add([Problem(target.host.name, "civitas_mail", *finding)], target.own)
        if policy and not config["webhook"]:
            self._waived |= waived & {"mail_webhook"}

    def _judge_alarms(self, target: _Target) -> None:
        """Who would hear of what is wrong, with the secrets that others gave."""
        values = self._rendered(target, ["monitoring_agent_mail_from"])
        if values:
            found = list(_monitoring_preflight.sender_problems(values["monitoring_agent_mail_from"]))
            self._add_sentences(target, found, "correct it")
        policy = _site_rules.policy_of(target.host)
        receivers = self._receivers(target)
        if receivers is None or policy is None:
            return
        where, variable = target.host.name, "civitas_alert_receivers"
        if variable in target.host.names:
            secrets = {name: self._secret_named(target, variable, name) or _GIVEN_URL for name in _alert_secrets.names(receivers)}
            found = _alert_receivers.problems(_alert_secrets.filled(receivers, secrets), variable)
            named = [re.sub(r"\.(url|token|headers) (is|has)", r".\1_secret names what \2", text) for text in found]
            self._add_sentences(target, named, "correct it")
            if found:
                return
        heard: t.Dict[str, t.Set[str]] = {}
        for receiver in receivers:
            for severity in receiver.get("severities", _alert_rules.SEVERITIES):
                heard.setdefault(severity, set()).update(set(receiver) & set(_alert_receivers.WAYS))
        if any("email" in ways for ways in heard.values()) and "civitas_mail" not in target.host.names:
            remedy = "Write civitas_mail, or another way of telling."
            self._add([Problem(where, variable, "has mail, and the host has no server by which it leaves", remedy)], target.own)
        waived = {waiver.rule for waiver in _policy.waivers_of(target.host.values.get("civitas_waivers"))}
        finding = _policy.check_alarms(policy, heard.get("critical", set()), waived)
        if finding:
            self._add([Problem(where, variable, *finding)], target.own)
        elif not receivers:
            self._notes.append(f"Nobody hears alarms of {where}; write civitas_mail or {variable}.")
        if policy.may_hold_personal_data and not heard.get("critical", set()) - {"email"}:
            self._waived |= waived & ({"second_channel"} if receivers else {"alarms"})

    def _judge_monitoring(self, target: _Target, targets: t.List[_Target]) -> None:
        """What a host would watch and show, with the secrets that others gave, and whether it is watched by anybody."""
        where, variable = target.host.name, "civitas_monitoring"
        watchers = [other for other in targets if _site_rules.MONITORING_GROUP in other.host.groups]
        if not watchers:
            finding = _site_rules.check_unwatched(target.host)
            self._add([Problem(where, *finding)] if finding else [], target.own)
            return
        reported = {problem.variable for problem in self._problems if problem.where in (where, "all hosts")}
        if target not in watchers or variable in reported:
            return
        heartbeat = (target.host.values.get(variable) or {}).get("heartbeat_secret")
        url = self._secret_named(target, variable, heartbeat) or _GIVEN_URL
        values = self._rendered(target, [f"monitoring_{name}" for name in _MONITORING])
        if not values:
            return
        config = {name: values[f"monitoring_{name}"] for name in _MONITORING}
        config["heartbeat_url"] = url if heartbeat else ""
        # Who hears alarms was judged for every host.
        found = _monitoring_server_preflight.problems({**config, "receivers": []})
        self._add_sentences(target, map(_as_written, found), "correct it")
        policy = _site_rules.policy_of(target.host)
        if policy and policy.may_hold_personal_data and not heartbeat:
            advice = "have a service outside tell you, and write its address into the secrets file and civitas_monitoring.heartbeat_secret"
            self._notes.append(f"Nobody hears when {where} itself is down; {advice}.")

    def _judge_heartbeat(self, target: _Target, targets: t.List[_Target]) -> None:
        """Who would hear that a host is down that judges itself."""
        if "monitoring_agent_heartbeat_url" not in target.variables:
            return  # a tier whose hosts are not measured
        where, variable = target.host.name, "civitas_heartbeat_secret"
        watched = any(_site_rules.MONITORING_GROUP in other.host.groups for other in targets)
        policy = _site_rules.policy_of(target.host)
        name = target.host.values.get(variable)
        if isinstance(name, str) and not _site_rules.check_secret_name(name):
            url = self._secret_named(target, variable, name)
            if url is not None and not _webhook.is_usable(url):
                remedy = "Write the one that the service outside gave you into the secrets file; it must be https."
                self._add([Problem(where, variable, f"names {name}, which is no usable address", remedy)], target.own)
        # Where others watch, they ping it.
        elif variable not in target.host.names and policy and policy.may_hold_personal_data and not watched:
            advice = f"have a service outside tell you, and write its address into the secrets file and {variable}"
            self._notes.append(f"Nobody hears when {where} itself is down; {advice}.")

    def _judge_backup(self, target: _Target, targets: t.List[_Target]) -> None:
        """What would be backed up, and for whom it would be kept. Keys of hosts are not known before somebody has asked them."""
        if "backup_recipients" not in target.variables:
            return  # a tier without backups
        policy = _site_rules.policy_of(target.host)
        if not any(_site_rules.BACKUP_GROUP in other.host.groups for other in targets):
            if policy and policy.may_hold_personal_data and not _site_rules.is_single_purpose(target.host):
                group = _site_rules.BACKUP_GROUP
                self._notes.append(
                    f"Nothing of {target.host.name} is backed up; put a host into the group {group} and write civitas_backup."
                )
            return
        reported = {problem.variable for problem in self._problems if problem.where in (target.host.name, "all hosts", "inventory")}
        if reported & {"civitas_backup", "civitas_backup_copy", "civitas_address", _site_rules.BACKUP_GROUP}:
            return
        for prefix, names, judge in (
            ("backup_", _BACKUP, _backup_preflight.problems),
            ("backup_store_", _BACKUP_STORE, _store_preflight.problems),
            ("backup_copy_", _BACKUP_COPY, _copy_problems),
        ):
            if prefix[:-1] in {role.name for role in target.roles}:
                values = self._rendered(target, [prefix + name for name in names])
                found = judge({name: values[prefix + name] for name in names}, True) if values else []
                self._add_sentences(target, list(dict.fromkeys(_as_written(text) for text in found)), "correct it")

    def _judge_drill(self, target: _Target) -> None:
        """Whose backups a host restores for trial by itself, and whether a key that opens them may lie there."""
        if _site_rules.DRILL_GROUP not in target.host.groups or "restore_drill" not in {role.name for role in target.roles}:
            return
        values = self._rendered(target, [f"restore_drill_{name}" for name in _DRILL])
        if not values:
            return
        config = {name: values[f"restore_drill_{name}"] for name in _DRILL}
        found = _drill_preflight.problems({**config, "settings": config["postgres_settings"], "is_store": False, "restores": False}, True)
        self._add_sentences(target, map(_as_written, found), "correct it")

    def _judge_volume(self, target: _Target) -> None:
        """The disk of a host's own for its data, and what opens it. What is on the disk the host judges."""
        if "data_volume" not in {role.name for role in target.roles}:
            return
        values = self._rendered(target, [*(f"data_volume_{name}" for name in _VOLUME), "data_volume_passphrase_secret"])
        if not values:
            return
        config = {name: values[f"data_volume_{name}"] for name in _VOLUME}
        secret = values["data_volume_passphrase_secret"]
        if secret:
            config["encryption"] = {**config["encryption"], "passphrase": self._secret_there(target, secret) or _GIVEN_PASSPHRASE}
        names = ("ansible_host", "civitas_address")
        own = [target.host.name, *(str(target.host.values[name]) for name in names if target.host.values.get(name))]
        self._add_sentences(target, map(_as_written, _volume_preflight.problems(config, own)), "correct it")

    def _secret_there(self, target: _Target, name: str) -> t.Optional[str]:
        """A secret that is made when it is missing, if it is there."""
        path = self._secrets_path(target)
        try:
            return _secrets_run.secrets_file(path, None, self._loader).get(name) if path else None
        except _secrets.SecretsError:
            return None  # told with the secrets file

    def _judge_exceptions(self, target: _Target) -> None:
        """What is set aside of the way in, by the rules of the environment."""
        policy = _site_rules.policy_of(target.host)
        names = ("people", "second_factor_grace_until", "automation_anywhere", "permit_root_automation")
        values = self._rendered(target, [f"access_{name}" for name in names])
        if policy is None or values is None:
            return
        people, grace_until, anywhere, root = (values[f"access_{name}"] for name in names)
        try:
            listed = _people.normalized(people)
        except _people.PeopleError:
            return  # told already
        without = [person["name"] for person in listed if not person["second_factor"] and person["state"] == "present"]
        waived = {waiver.rule for waiver in _policy.waivers_of(target.host.values.get("civitas_waivers"))}
        way_in = _policy.WayIn(without, str(grace_until), bool(anywhere), bool(root))
        findings, used = _policy.check_way_in(policy, way_in, waived)
        self._waived |= used
        self._add([Problem(target.host.name, *finding) for finding in findings], target.own)

    def _judge_firewall(self, target: _Target) -> None:
        """Whether the way in would stay open. What may go out is judged where name servers are known, on the host."""
        values = self._rendered(target, [f"firewall_{name}" for name in _FIREWALL])
        if values:
            config = {name: values[f"firewall_{name}"] for name in _FIREWALL}
            problems = _firewall_model.problems({**config, "egress": {"mode": "open", "destinations": []}})
            # Ports are what roles make of variables, whose faults are told already.
            told = any(problem.where == target.host.name for problem in self._problems)
            unknown = any(problem.variable == "civitas_address" for problem in self._problems)
            noise = ("firewall_ports",) * told + ("firewall_monitoring",) * unknown
            self._add_way_in(target, [text for text in problems if not text.startswith(noise)])

    def _add_way_in(self, target: _Target, sentences: t.Iterable[str]) -> None:
        """Told by the names that people wrote."""
        named = [_SITE_NAMES.sub(lambda found: f"civitas_{found[1] or found[2]}", text) for text in sentences]
        self._add_sentences(target, [_naming_the_secret(text) for text in named], "correct it")

    def _judge_acme(self, target: _Target) -> None:
        """What the ACME server would be asked for, once the site-wide variables are sound."""
        if any(problem.variable.startswith("civitas_") for problem in self._problems):
            return
        names = ["certificates_acme", *(f"certificates_acme_{name}" for name in _ACME + _ACME_DNS)]
        # Rendering a secret would generate it; somebody else gives these.
        secret = [name for name in names if _site_roles.SECRET in _site_roles.mentions(target.variables.get(name), target.variables)]
        values = self._rendered(target, [name for name in names if name not in secret])
        if not values or not values["certificates_acme"]:
            return
        values.update(dict.fromkeys(secret, "c2VjcmV0"))
        config = {name.replace("certificates_acme_", ""): value for name, value in values.items()}
        config["certificates"] = config.pop("certificates_acme")
        self._add_sentences(target, _acme_preflight.problems(config), "correct it")

    def _judge_internal_ca(self, target: _Target) -> None:
        """Whether the internal CA can issue what the roles ask for."""
        values = self._rendered(target, [f"certificates_{name}" for name in _INTERNAL_CA])
        path = self._secrets_path(target)
        if not values or not path or _internal_ca.MISSING:
            return
        wanted = {name: values[f"certificates_{name}"] for name in _INTERNAL_CA}
        directory = target.own.get("inventory_dir")
        try:
            policy = _internal_ca.Policy(
                wanted["common_name"],
                wanted["ca_site_names"] + wanted["ca_permitted_names"],
                datetime.timedelta(days=int(wanted["lifetime_days"])),
                datetime.timedelta(days=int(wanted["renew_before_days"])),
                wanted["revoked"],
            )
            found = [*_internal_ca.policy_problems(policy), *_internal_ca_run.certificate_problems(wanted["internal"], policy)]
            if not found:
                root_file = _secrets_run.secrets_path(wanted["root_file"], directory) if wanted["root_file"] else ""
                secrets = _secrets_run.secrets_file(path, None, self._loader)
                now = datetime.datetime.now(datetime.timezone.utc)
                keeper = _internal_ca_run.Keeper(secrets, root_file, wanted["controller_ca_file"], policy, now, check=True)
                found = [keeper.problem([host for item in wanted["internal"] for host in item["hosts"]])]
        except _secrets.SecretsError:
            return  # told with the secrets file
        except (TypeError, ValueError, OverflowError):
            return  # told already, as options of the role
        for text in filter(None, found):
            problem, _end, remedy = text.partition("; " if "; " in text else ". ")
            self._add([Problem(target.host.name, "internal CA", problem, f"{remedy[:1].upper()}{remedy[1:].rstrip('.')}.")], target.own)

    def _add_sentences(self, target: _Target, sentences: t.Iterable[str], otherwise: str) -> None:
        """Problems as the preflights of roles tell them: the variable, what is wrong and, after a semicolon or colon, what to write."""
        for text in sentences:
            variable = re.split(r"\W", text, maxsplit=1)[0]
            told = text[len(variable) :].lstrip(":, ")
            # A sentence that is all remedy begins with it.
            problem, remedy = [*re.split(r"; |: (?=write |read )|^(?=write )", told, maxsplit=1), otherwise][:2]
            problem = problem or "cannot be used as it is"
            self._add([Problem(target.host.name, variable, problem, f"{remedy[:1].upper()}{remedy[1:]}.")], target.own)

    def _rendered(self, target: _Target, names: t.List[str]) -> t.Optional[t.Dict[str, t.Any]]:
        """The values of variables of roles, or V(None) when one is not there, needs the host, or was reported already."""
        reported = {problem.variable for problem in self._problems if problem.where == target.host.name}
        if reported & {_WRITTEN_AS.get(name, name) for name in names} or not set(names) <= set(target.variables):
            return None
        try:
            return {name: _value(target, name) for name in names}
        except Exception:  # a template may raise anything
            return None

    # The certificate of the public site.

    def _judge_certificate(self, targets: t.List[_Target]) -> t.List[str]:
        """Judge it once, since its variables are the same on all hosts; return what is allowed and people should know."""
        # A page of the monitoring is a site, too, and has a certificate of the internal CA.
        servers = [target for target in targets if not _site_rules.is_single_purpose(target.host)]
        target = next((target for target in servers if any("sites" in role.declarations for role in target.roles)), None)
        settings = self._certificate_settings(target) if target else None
        if target is None or settings is None:
            return []
        mode = self._rendered(target, ["nginx_tls_mode"])
        if mode and mode["nginx_tls_mode"] == "upstream" and settings.source == "internal":
            return []  # what people see is the load balancer's
        judgement = _site_certificate.judge(settings)
        self._add([Problem(target.host.name, *finding) for finding in judgement.findings], target.own)
        today = datetime.date.today()
        notes = list(judgement.advice)
        for waiver in settings.waivers:
            days = f"{waiver.days_left(today)} days left, until {waiver.until.isoformat()}"
            used = waiver.rule in judgement.waived or waiver.rule in self._waived
            notes.append(f"Waiver {waiver.rule} ({days}): {waiver.reason if used else 'it waives nothing here; remove it.'}")
        return notes

    def _certificate_settings(self, target: _Target) -> t.Optional[_site_certificate.Settings]:
        """What the site says of its certificate, or V(None) when a part of it was reported already."""
        values, host = target.host.values, target.host
        policy = _site_rules.policy_of(host)
        names = [name for name in target.own if re.match(r"civitas_(certificate|acme)_|civitas_(domain|aliases|application)$", name)]
        reported = {problem.variable for problem in self._problems if problem.where in (host.name, "all hosts")}
        if policy is None or not policy.application_installed or "civitas_domain" not in values or reported & set(names):
            return None
        passphrase = self._given_secret(target, "civitas_certificate_passphrase_secret")
        if any(name not in values for name in names) or (passphrase is None and "civitas_certificate_passphrase_secret" in names):
            return None
        return _site_certificate.Settings(
            policy=policy,
            application=values.get("civitas_application", ""),
            domain=values["civitas_domain"],
            aliases=values.get("civitas_aliases", []),
            source=values.get("civitas_certificate_source", "internal"),
            files=[self._beside_inventory(target, path) for path in values.get("civitas_certificate_files", [])],
            trust_file=self._beside_inventory(target, values.get("civitas_certificate_trust_file", "")),
            internal_ca_file=self._beside_inventory(target, values.get("civitas_ca_file", "ca.pem")),
            passphrase=passphrase,
            fetch_missing=values.get("civitas_certificate_fetch_missing", False),
            acme_directory=values.get("civitas_acme_directory", ""),
            acme_challenge=values.get("civitas_acme_challenge", "http-01"),
            waivers=_policy.waivers_of(values.get("civitas_waivers")),
        )

    def _beside_inventory(self, target: _Target, path: str) -> str:
        return os.path.join(str(target.own.get("inventory_dir") or ""), os.path.expanduser(path)) if path else ""

    def _given_secret(self, target: _Target, variable: str, key: str = "") -> t.Optional[str]:
        """The secret that a variable, or a key of it, names."""
        name = target.host.values.get(variable)
        if name and key:
            name = name.get(key)
        return self._secret_named(target, variable, name)

    def _secret_named(self, target: _Target, variable: str, name: t.Optional[str]) -> t.Optional[str]:
        """The secret with a name that a variable gives; somebody else made it, so it cannot be generated."""
        path = self._secrets_path(target) if name else None
        if not path:
            return None
        try:
            value = _secrets_run.secrets_file(path, None, self._loader).get(name)
        except _secrets.SecretsError:
            return None  # told with the secrets file
        if value is None:
            remedy = f'Run ansible-vault edit {_short(path)} and write {name}: "...", as it was given to you.'
            self._add([Problem(target.host.name, variable, f"names {name}, which the secrets file does not have", remedy)], target.own)
        return value

    # Secrets.

    def _judge_secrets(self, targets: t.List[_Target], generate: bool) -> t.Tuple[int, t.List[str]]:
        """Judge the secrets files and fill them; return how many secrets are there and the names of new ones."""
        wanted: t.Dict[str, t.Dict[str, int]] = {}
        passwords: t.Dict[str, t.Set[str]] = {}
        for target in targets:
            items = self._declared(target, "secrets")
            databases = self._declared(target, "databases")
            path = self._secrets_path(target)
            if path:
                passwords.setdefault(path, set()).update(str(item.get("password_secret")) for item in databases)
                names = wanted.setdefault(path, {})
                for item in items:
                    names[item["name"]] = max(names.get(item["name"], 0), item.get("length", _secrets.DEFAULT_LENGTH))
        self._add(_site_rules.check_password_files(self._password_files()))
        stores = {}
        for path, names in wanted.items():
            sources = self._vars.get("ansible_inventory_sources") or []
            self._add(_site_rules.check_inventory_sources(sources, path, constants.INVENTORY_IGNORE_PATTERNS))
            stores[path] = self._judge_store(path, names, passwords[path], generate)
        present, generated = 0, []
        for path, store in stores.items():
            if store and not self._problems:
                missing = store.names_missing(wanted[path])
                if missing and generate and not self._task.check_mode:
                    store.ensure({name: _maker(wanted[path][name]) for name in missing})
                    generated += missing
                present += len(store.names())
        return present, generated

    def _secrets_path(self, target: _Target) -> t.Optional[str]:
        if "civitas_secrets_file" in target.own and "civitas_secrets_file" not in target.host.values:
            return None
        try:
            path = target.host.values.get("civitas_secrets_file")
            if path is not None and _site_rules.check_path(path):
                return None  # told already, as a variable
            return os.path.realpath(_secrets_run.secrets_path(path, target.own.get("inventory_dir")))
        except _secrets.SecretsError as error:
            self._add([Problem(target.host.name, "civitas_secrets_file", error.problem, error.remedy)])
            return None

    def _judge_store(self, path: str, wanted: t.Dict[str, int], passwords: t.Set[str], generate: bool) -> t.Optional[_secrets.SecretsFile]:
        where = _short(path)
        try:
            store = _secrets_run.secrets_file(path, None, self._loader)
            for length in wanted.values():
                _secrets.random_value(length)
            missing = store.names_missing(wanted)
            names = store.names()
            if missing:
                store.check_writable()
        except _secrets.SecretsError as error:
            self._add([Problem("controller", "secrets file", error.problem, error.remedy)])
            return None
        for name in names:
            try:
                value = store.get(name)
            except _secrets.SecretsError as error:
                self._add([Problem(where, name, error.problem, error.remedy)])
                continue
            wrong = _postgres_objects.check_password(value) if value and name in passwords else None
            if wrong:
                remedy = f"Run ansible-vault edit {where} and correct it, or remove the line to have one generated."
                self._add([Problem(where, name, f"is a database password and {wrong}", remedy)])
        if not generate:
            remedy = f'Run playbooks/validate.yml to generate it, or ansible-vault edit {where} and write {{0}}: "..."'
            self._add(Problem(where, name, "is missing", remedy.format(name)) for name in missing)
        return store

    def _password_files(self) -> t.List[str]:
        """The files from which Ansible reads vault passwords; scripts are none."""
        secrets = self._loader._vault.secrets or []
        files = [secret.filename for dummy, secret in secrets if type(secret).__name__ == "FileVaultSecret"]
        return sorted({str(path) for path in files if path})


def _group_roles(roles: t.Any) -> t.Dict[str, t.List[str]]:
    if isinstance(roles, list):
        roles = {"all": roles}
    if not isinstance(roles, dict) or not all(isinstance(names, list) for names in roles.values()):
        raise AnsibleActionFail("'roles' must be a list of roles, or a mapping of groups to lists of roles such as {all: [base, nginx]}.")
    return {str(group): [str(name).replace("civitas.hosting.", "", 1) for name in names if name] for group, names in roles.items()}


def _value(target: _Target, name: str) -> t.Any:
    """The value of a variable that the host has. A template may raise anything."""
    return target.templar.template(target.templar.available_variables[name])


def _used(target: _Target) -> t.Tuple[t.List[str], t.List[str]]:
    """The variables that the roles of a host use and that have one value wherever they are used, as V(by_need) orders them."""
    options = [option for role in target.roles for option in role.options]
    raw = [[target.variables.get(option) for option in options], [role.declarations for role in target.roles]]
    # Rendering a secret would generate it. What is known in a role only, or of a host that was asked, has another value there.
    elsewhere = {_site_roles.SECRET, _site_roles.VAULT, "role_path"}.union(*(role.platform_names for role in target.roles))
    return _site_roles.by_need({*options, *_site_roles.mentions(raw, target.variables)}, target.variables, elsewhere)


def _copy_problems(config: t.Mapping[str, t.Any], check: bool) -> t.List[str]:
    """What else the host does, the rules of groups say."""
    return _copy_preflight.problems({**config, "is_store": True, "is_sender": False}, check)


def _as_written(text: str) -> str:
    """A sentence of a role's preflight with the names that people wrote in the place of the role's."""
    for name, site in _WRITTEN_AS.items():
        text = re.sub(rf"\b{name}\b", site, text)
    return text


def _naming_the_secret(text: str) -> str:
    """A sentence about an address, of which the inventory has the name only."""
    return re.sub(r"^(\w+_webhook)\.url is", r"\1.url_secret names what is", text)


def _maker(length: int) -> t.Callable[[], str]:
    return lambda: _secrets.random_value(length)


def _source(raw: t.Any) -> str:
    """File and line where a value was written."""
    if Origin is not None:
        origin = Origin.get_tag(raw)
        path, line = (origin.path, origin.line_num) if origin else (None, None)
    else:
        path, line = (getattr(raw, "ansible_pos", None) or (None, None))[:2]
    if not path or not os.path.exists(path):
        return ""
    return f"{_short(path)}:{line}" if line else _short(path)


def _short(path: str) -> str:
    return min(os.path.relpath(path), os.path.abspath(path), key=len)
