# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the sink was told something: told.py STATE ALERT."""

import json
import sys

with open("/srv/sink/requests.jsonl", encoding="utf-8") as file:
    requests = [json.loads(line) for line in file]
told = [alert for request in requests if request["path"].startswith("/hook/") for alert in request["body"].get("alerts", [])]
sys.exit(0 if [alert for alert in told if (alert["state"], alert["name"]) == tuple(sys.argv[1:])] else 1)
