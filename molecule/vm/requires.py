# SPDX-License-Identifier: GPL-3.0-or-later
"""Says why this scenario cannot run here, if so."""

from tools import vm

print(vm.obstacle())
