# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for the day on which hosts are lost: a page with the site's own names, addresses, commands and measured times.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import typing as t

Facts = t.Mapping[str, t.Any]
# In this order hosts are built when all are lost: the way in, then what data come from, then where they go, then who watches.
_GROUPS = {
    "bastion": "the way in",
    "backup": "keeps the backups, and cannot read them",
    "server": "the application and its data",
    "drill": "restores backups for trial, and has a key that opens them",
    "monitoring": "watches the others, keeps the evidence of logins",
}


def render(facts: Facts) -> str:
    """The plan as Markdown.

    Args:
        facts: C(site), C(environment), C(made) and C(inventory) as texts; C(hosts), each with C(name), C(address), C(user) and C(group);
            C(people) and C(contacts), mappings; C(recipients), public keys of age; C(copy), the host with the
            second copy of the sets, or empty; C(sets), for each host what the store keeps of it, or
            nothing when the store was not asked; C(drills) and C(rebuilds), for each host the last report or nothing.

    Raises:
        KeyError, TypeError: a part is missing or of another shape.
    """
    hosts = sorted(facts["hosts"], key=lambda host: (list(_GROUPS).index(host["group"]), host["name"]))
    lines = [
        f"# If hosts of {facts['site']} are lost",
        "",
        f"Made on {facts['made']} from `{facts['inventory']}` ({facts['environment']}). Make it again after every change of hosts, people",
        "or keys, and after every drill. **Print it**: on that day this file may be lost as well.",
        "",
        *_contacts(facts),
        *_hosts(hosts),
        *_needed(facts),
        *_sets(facts),
        *_times(facts),
        *_steps(facts, hosts),
    ]
    return "\n".join(lines) + "\n"


def _table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[t.Any]]) -> t.List[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows), ""]


def _cell(value: t.Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _contacts(facts: Facts) -> t.List[str]:
    lines = ["## Who", ""]
    if facts["contacts"]:
        rows = [[one["name"], one.get("does", ""), one.get("phone", ""), one.get("email", "")] for one in facts["contacts"]]
        lines += _table(["name", "does", "phone", "mail"], rows)
    else:
        lines += ["**Nobody is named.** Write `civitas_contacts`: who decides, who has which key of the backups, who runs the network.", ""]
    if not facts["people"]:
        return [*lines, "Nobody gets into the hosts but Ansible: `civitas_people` is empty.", ""]
    lines += ["Who gets into the hosts:", ""]
    return lines + _table(["account", "role"], [[one["name"], one.get("role", "user")] for one in facts["people"]])


def _hosts(hosts: t.Sequence[Facts]) -> t.List[str]:
    rows = [[host["name"], host["address"], host["user"], _GROUPS[host["group"]]] for host in hosts]
    return ["## What there is", "", *_table(["host", "address", "Ansible logs in as", "is"], rows)]


def _needed(facts: Facts) -> t.List[str]:
    files = facts["files"]
    keys = [f"   - `{key}`" for key in facts["recipients"]] or ["   - **none is written; there are no backups**"]
    return [
        "## What it takes",
        "",
        "Nothing of it is on a server:",
        "",
        f"1. the folder of the inventory `{facts['inventory']}` with all that belongs to it, or its copy: `{files['secrets']}`,",
        f"   `{files['backup_keys']}`, `{files['ca']}`, the certificate and the application's archive;",
        f"2. the password of `{files['secrets']}` (`ANSIBLE_VAULT_PASSWORD_FILE`), and the private key by which Ansible logs in;",
        "3. **one** of the private keys of the backups; these are their public halves:",
        *keys,
        "4. a computer with this collection; machines from the provider, or the broken ones with a fresh system;",
        "5. whoever can change the name in the DNS and the firewall of the network;",
        "6. `ca-root.yml`, from where it is kept, when the site's own CA is made anew: without it all have to trust a new root.",
        "",
    ]


def _sets(facts: Facts) -> t.List[str]:
    lines = ["## What there is to restore from", ""]
    for host, sets in sorted(facts["sets"].items()):
        if sets is None:
            lines += [f"The store was not asked for sets of {host}: it did not answer.", ""]
            continue
        good = [one for one in sets if one["good"]]
        if not good:
            lines += [f"**There is no good backup of {host}.**", ""]
            continue
        size, last = _size(good[-1]["bytes"]), good[-1]["begin"]
        if len(good) == 1:
            lines += [f"Of {host} one good set, from {last}, of {size}.", ""]
        else:
            lines += [f"Of {host} {len(good)} good sets, from {good[0]['begin']} to {last}, the last one of {size}.", ""]
    if not facts["sets"]:
        lines += ["**Nothing: this site keeps no backups.** What is lost with a host is lost.", ""]
    return lines


def _times(facts: Facts) -> t.List[str]:
    lines = ["## How long it takes", ""]
    rows = []
    for host, report in sorted(facts["drills"].items()):
        if report:
            kind = "restore, in the drill" if report["good"] else "restore, in a drill that FAILED"
            rows.append([host, kind, _span(report["recovery_time_seconds"]), report["end"]])
    for host, report in sorted(facts["rebuilds"].items()):
        if report:
            rows.append([host, "built anew and restored", _span(report["seconds"]), report["end"]])
    if rows:
        lines += [*_table(["host", "what", "took", "measured"], rows)]
    else:
        lines += ["**It was never measured.** Run `civitas.hosting.restore_drill`.", ""]
    points = [
        f"In the last drill of {host}, {_span(report['recovery_point_seconds'])} of work would have been lost."
        for host, report in sorted(facts["drills"].items())
        if report and report.get("recovery_point_seconds") is not None
    ]
    return [*lines, *points, ""] if points else lines


def _steps(facts: Facts, hosts: t.Sequence[Facts]) -> t.List[str]:
    run = f"ansible-playbook -i {facts['inventory']} civitas.hosting."
    lines = [
        "## What to do",
        "",
        "First decide, and write down when and why: was it an accident, or was somebody in? If somebody may have been in, take the last",
        "step of this page, on machines that were never theirs. Tell people that the service is down, and until when at the earliest.",
        "",
        "All commands are run in the folder of the inventory, after `export ANSIBLE_VAULT_PASSWORD_FILE=FILE`. In place of KEY write the",
        "file with one of the private keys of the backups; `age-keygen -y KEY` prints whose it is. ADDRESS is that of the new machine.",
        "",
    ]
    for host in hosts:
        name, group = host["name"], host["group"]
        account = f"`{host['user']}`" if host["user"] else "that Ansible logs in with, which `ansible_user` does not name,"
        lines += [f"### {name} is lost ({_GROUPS[group]})", ""]
        lines += [
            f"1. Get a machine with a fresh system and the account {account} with Ansible's key and sudo. If its address is",
            "   another one, write it into `hosts.yml`.",
            f"2. Remove the old host key (`ssh-keygen -R {host['address']}`). Write a line with the new one into `~/.ssh/known_hosts`:",
            "   ADDRESS, a space, and what `cat /etc/ssh/ssh_host_ed25519_key.pub` prints on its console.",
        ]
        if group == "server":
            lines += [
                "3. Build it and bring its data back:",
                "",
                "   ```",
                f"   {run}rebuild -e rebuild_host={name} -e restore_key_file=KEY",
                "   ```",
                "",
                "4. Look at the application with somebody who works with it. Then let the public name lead there.",
            ]
        else:
            if group == "bastion":
                lines += [
                    "   Keep the old address when you can: the other hosts take SSH from it alone. With another one, write that into",
                    "   `civitas_admin_networks` and wherever else the inventory has the old one, and let it in as root at the console of",
                    "   each other host, or nobody reaches them:",
                    "",
                    "   ```",
                    "   systemctl stop civitas-firewall-watch.timer",
                    "   nft add element inet civitas admin4 '{ ADDRESS }'",
                    f"   sed -i 's/^from=\"/&ADDRESS,/' /etc/ssh/civitas/keys/{host['user'] or 'USER'}",
                    "   ```",
                    "",
                ]
            lines += ["3. Build it:", "", "   ```", f"   {run}site", "   ```", ""]
        if name == facts["copy"]:
            lines += ["4. It copies all again that the other one keeps: `sudo systemctl start civitas-copy` there."]
        elif group == "backup":
            if facts["copy"]:
                lines += [f"   Restore from {facts['copy']} until then: add `-e restore_store={facts['copy']}`."]
            lines += [
                "4. Its sets are gone, and that run ends with `FAILED  backup_store.sets`. Make one now, on each server:",
                f"   `sudo systemctl start civitas-backup`. Until then {name} is no help.",
            ]
        if group == "monitoring":
            lines += ["4. What it had measured, and the evidence that others had sent it, are gone. See that alarms arrive:", ""]
            lines += ["   ```", f"   {run}test_alerts", "   ```"]
        lines += [""]
    second = "there is nothing to restore from but a copy that somebody took elsewhere"
    if facts["copy"]:
        second = f"add `-e restore_store={facts['copy']}`, as far as that one is left"
    order = ", ".join(host["name"] for host in hosts)
    servers = [host["name"] for host in hosts if host["group"] == "server"]
    rebuild = f"{run}rebuild -e rebuild_host={servers[0] if servers else 'HOST'} -e restore_key_file=KEY"
    return [
        *lines,
        "### All of them are lost",
        "",
        f"In this order: {order}. One run builds all that are there, and brings the data back. If the host with the backups is among them,",
        f"{second}:",
        "",
        "```",
        rebuild,
        "```",
        "",
        "### Somebody was in",
        "",
        "Take the hosts off the network and keep their disks: they are evidence. Build on other machines. Choose a set from before the",
        "intrusion (`-e restore_list=true` of the playbook `restore`, and `-e restore_before=...`). Then all secrets of the site",
        "get new values, the old ones are tried and must fail:",
        "",
        "```",
        f"{rebuild} -e rebuild_after_intrusion=true",
        "```",
        "",
        "Then what others gave (mail, chat, certificate): ask them for new ones. And people's keys and codes:",
        "`rotate_keys -e rotate=user_keys`, `reset_2fa`.",
    ]


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _span(seconds: t.Any) -> str:
    whole = int(float(seconds))
    if whole < 120:
        return f"{whole} seconds"
    minutes = whole // 60
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours {minutes % 60} minutes"
