# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a certificate that ended yesterday: python material.py FILE"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from tests.unit import pki

DAY = datetime.timedelta(days=1)
ended = pki.issue("story.records.test", names=["story.records.test"], start=pki.NOW - 90 * DAY, end=pki.NOW - DAY)
Path(sys.argv[1]).write_text(ended.pem + ended.key_pem())
