# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Makefile calls: test bed, demo, test runner, bench, page generator."""
