#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_images
short_description: Bring container images from archives or registries to a host
version_added: 0.1.0
description:
  - Makes sure that the engine of a host has a list of images, each in exactly the release that is named.
  - An image with O(images[].archive) comes from a file of C(docker save) on the controller, as on a site without a registry. Only what the
    host does not have is uploaded. The checksum is compared on the controller before the upload and on the host before it is loaded.
  - An image without an archive is pulled when the host does not have it.
  - C(/var/lib/civitas/images.json) on the host remembers which archive became which image, so an archive that was built again under
    the same tag is noticed.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Says which images would be loaded or pulled, and judges their archives. Works on a host without an engine.
    support: full
  diff_mode:
    description: Lists the images that are loaded or pulled.
    support: full
options:
  images:
    description: The images.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Repository and tag, such as V(civitas/kinto:25.0.0). The tags V(latest) and V(none) are refused.
          - A name to be pulled may end with the digest, C(@sha256:) and 64 hexadecimal digits.
        type: str
        required: true
      archive:
        description: Path on the controller of an archive of C(docker save), compressed or not.
        type: path
      sha256:
        description: Checksum of O(images[].archive), required with it.
        type: str
  uploads:
    description: Set by the action of this module, which brings the archives to the host. Paths on the host by image name.
    type: dict
notes:
  - Images are never removed.
"""

EXAMPLES = r"""
- name: Bring the application's image to the host
  civitas.hosting.container_images:
    images:
      - name: civitas/kinto:25.0.0
        archive: /srv/artefacts/kinto-25.0.0.tar.gz
        sha256: e3aa4505d02d1f515fb1189f7de8d521d8f28e819c726c5d412347be4e86bf6c
"""

RETURN = r"""
engine_present:
  description: Whether a container engine answers on the host. It may be V(false) in check mode only.
  returned: always
  type: bool
images:
  description: The ids of the images that the host has, by name.
  returned: always
  type: dict
  sample:
    civitas/kinto:25.0.0: sha256:4c25f463622df0b30146c83b1099d686f928383958aa9199fa68d5d666757a12
changed_images:
  description: The images that were loaded or pulled, or would be in check mode.
  returned: always
  type: list
  elements: str
missing_archives:
  description: The images whose archives have to be uploaded.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._container_images import (
    LEDGER,
    Engine,
    ImagesError,
    differences,
    list_problems,
    read_ledger,
    sha256_of,
    write_ledger,
)


def bring(module: AnsibleModule) -> dict[str, object]:
    images, uploads = module.params["images"], module.params["uploads"] or {}
    problems = list_problems(images)
    if problems:
        raise ImagesError("\n".join(problems))
    engine = Engine(module.run_command, module.get_bin_path("docker"))
    if not engine.present and not module.check_mode:
        raise ImagesError(f"no container engine answers on this host: {engine.why_absent}; run the role civitas.hosting.docker first")
    ledger = read_ledger(LEDGER)
    ids, wanted = differences(images, engine, ledger)
    result = {
        "changed": bool(wanted),
        "engine_present": engine.present,
        "images": ids,
        "changed_images": [image["name"] for image in wanted],
        "missing_archives": [image["name"] for image in wanted if image["archive"] and image["name"] not in uploads],
        "diff": {"before": "", "after": "".join(f"{image['name']}\n" for image in wanted)},
    }
    if module.check_mode or result["missing_archives"]:
        return result
    for image in wanted:
        # Nothing is loaded before everything has arrived whole.
        if image["archive"] and sha256_of(uploads[image["name"]]) != image["sha256"]:
            raise ImagesError(f"image '{image['name']}': its archive was damaged on the way to the host; run again")
    for image in wanted:
        name = image["name"]
        if image["archive"]:
            ids[name] = engine.load(name, uploads[name])
            ledger[name] = {"archive_sha256": image["sha256"], "id": ids[name]}
            write_ledger(LEDGER, ledger)
            os.unlink(uploads[name])
        else:
            ids[name] = engine.pull(name)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "archive": {"type": "path"},
                    "sha256": {"type": "str"},
                },
            },
            "uploads": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**bring(module))
    except ImagesError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
