#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_jobs
short_description: Run the jobs of an application that were not done yet
version_added: 0.1.0
description:
  - Runs commands such as migrations in a container of a service, with C(docker compose run), without starting the services.
  - A ledger on the host remembers what was done, so a job runs once, or once for every release, and again when a secret that it brings into
    the application was replaced. A job that failed is not entered and runs again the next time. Jobs after a failed one do not run.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Says which jobs would run. Works before the application's files are there.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  project:
    description: Name of the Compose project.
    type: str
    required: true
  directory:
    description: Directory on the host with the project's C(compose.yml).
    type: path
    required: true
  release:
    description: The release of the application. Jobs with O(jobs[].run=every_release) run again when it changes.
    type: str
    required: true
  jobs:
    description: The jobs, in the order in which they run.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name by which the ledger knows the job.
        type: str
        required: true
      service:
        description: The service in whose container the command runs.
        type: str
        required: true
      command:
        description: A list of arguments, or a text that is split at spaces outside of quotes. No shell reads it.
        type: raw
        required: true
      run:
        description: How often.
        type: str
        choices: [once, every_release]
        default: once
      secrets:
        description: Files in O(secrets_directory) whose content the job brings into the application, such as an administrator's password.
          The job runs again when one of them is another file than it was the last time.
        type: list
        elements: str
        default: []
      timeout:
        description: Seconds after which the job has failed.
        type: int
        default: 1800
  ledger:
    description: The ledger, in a directory that exists. C(/var/lib/civitas/apps/<project>/jobs.json) unless given.
    type: path
  secrets_directory:
    description: Directory on the host whose files are secret. What they hold is masked in messages.
    type: path
"""

EXAMPLES = r"""
- name: Run the jobs of the application
  civitas.hosting.app_jobs:
    project: demo
    directory: /srv/civitas/apps/demo
    release: 25.0.0
    jobs:
      - {name: migrate, service: web, command: [migrate], run: every_release}
      - {name: create-admin, service: web, command: [create-admin, admin], secrets: [admin_password]}
    secrets_directory: /etc/civitas/apps/demo/secrets
"""

RETURN = r"""
jobs_run:
  description: The jobs that ran, or would run in check mode.
  returned: always
  type: list
  elements: str
ledger:
  description: The ledger afterwards. By job, the release, the time (UTC), the seconds it took and the exit code.
  returned: always
  type: dict
"""

import datetime
import os
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._app_jobs import (
    Job,
    JobsError,
    Ledger,
    arguments,
    locked,
    make_directory,
    pending,
    read,
    versions,
)
from ansible_collections.civitas.hosting.plugins.module_utils._compose_project import mask, secret_values
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json


def run_job(module: AnsibleModule, docker: str, job: Job) -> dict[str, object]:
    """Run one job; its entry for the ledger. JobsError when it fails."""
    name = f"{module.params['project']}-job-{job['name']}"
    command = [
        docker,
        "compose",
        "--project-name",
        module.params["project"],
        "--file",
        os.path.join(module.params["directory"], "compose.yml"),
    ]
    command += ["run", "--rm", "--no-deps", "--no-TTY", "--name", name, job["service"], *arguments(job["command"])]
    # Left over by a run that was killed.
    module.run_command([docker, "rm", "--force", name])
    started = time.time()
    secrets = versions(job, module.params["secrets_directory"])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=job["timeout"], check=False
        )
        output, reason = done.stdout, f"exit code {done.returncode}"
        if done.returncode == 0:
            now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            entry = {"release": module.params["release"], "time": now, "seconds": round(time.time() - started, 1), "rc": 0}
            return {**entry, "secrets": secrets} if secrets else entry
    except subprocess.TimeoutExpired as error:
        module.run_command([docker, "rm", "--force", name])
        output, reason = error.stdout or b"", f"not done after {job['timeout']} seconds"
    directory = module.params["secrets_directory"]
    text = mask(output.decode("utf-8", errors="replace"), secret_values(directory) if directory else [])
    lines = "\n".join(f"  {line}" for line in text.strip().splitlines()[-20:]) or "  (it said nothing)"
    raise JobsError(
        f"job '{job['name']}' failed ({reason}); it is not in the ledger and runs again next time. The end of what it said:\n{lines}"
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "jobs": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "service": {"type": "str", "required": True},
                    "command": {"type": "raw", "required": True},
                    "run": {"type": "str", "choices": ["once", "every_release"], "default": "once"},
                    # Names.
                    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
                    "timeout": {"type": "int", "default": 1800},
                },
            },
            "ledger": {"type": "path"},
            "secrets_directory": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    state = f"/var/lib/civitas/apps/{module.params['project']}"
    path = module.params["ledger"] or f"{state}/jobs.json"
    jobs, release, secrets = module.params["jobs"], module.params["release"], module.params["secrets_directory"]
    done: list[str] = []
    ledger: Ledger = {}
    try:
        ledger = read(path)
        if not pending(jobs, ledger, release, secrets):
            module.exit_json(changed=False, jobs_run=[], ledger=ledger)
        if module.check_mode:
            module.exit_json(changed=True, jobs_run=[job["name"] for job in pending(jobs, ledger, release, secrets)], ledger=ledger)
        if not module.params["ledger"]:
            make_directory(state)
        with locked(path):
            # Read again: another run may have done them before the lock was free.
            ledger = read(path)
            for job in pending(jobs, ledger, release, secrets):
                ledger[job["name"]] = run_job(module, module.get_bin_path("docker", required=True), job)
                write_json(path, ledger)
                done.append(job["name"])
    except JobsError as error:
        module.fail_json(msg=str(error), changed=bool(done), jobs_run=done, ledger=ledger)
    module.exit_json(changed=bool(done), jobs_run=done, ledger=ledger)


if __name__ == "__main__":
    main()
