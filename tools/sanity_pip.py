# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts pip into an empty virtual environment of ansible-test.

ansible-test downloads a script for that from a server of its own, which cannot be reached from everywhere; a file in its cache is taken
instead. This one (see tools/testrun.py) starts from the pip that comes with Python and installs the versions that ansible-test asks for
from the usual package index.
"""

from __future__ import annotations

import subprocess
import sys

subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
# The first argument is the path of ansible-test's wrapper of pip; the switches of get-pip.py mean nothing to pip.
words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words], check=True)
