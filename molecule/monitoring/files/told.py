# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether all of these were told, by the chat and by mail: told.py STATE:HOST:ALERT ... STATE is new or over.

Prints what is missing. A mail names no rule: its subject or text has the sentence that the chat had.
"""

import json
import sys

with open("/srv/story/heard.jsonl", encoding="utf-8") as file:
    heard = [json.loads(line) for line in file]
chat = [alert for one in heard if one["way"] == "chat" for alert in one["body"].get("alerts", [])]
mail = [line for one in heard if one["way"] == "mail" for line in one["text"].splitlines()]
missing = []
for wanted in sys.argv[1:]:
    state, host, name = wanted.split(":")
    found = [alert for alert in chat if (alert["state"], alert["host"], alert["name"]) == (state, host, name)]
    if not found:
        missing.append(f"{wanted} in the chat")
    lead = {"new": ("WARNING: ", "CRITICAL: "), "over": ("over: ",)}[state]
    # Values may differ: each way has its own moment.
    begin = found[0]["text"].split(" is ")[0] if found else "\0"
    if not [line for line in mail if line.startswith(lead) and f"{host}: {begin}" in line]:
        missing.append(f"{wanted} by mail")
print("\n".join(missing))
sys.exit(1 if missing else 0)
