#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A server in a container that loads its certificate at its start and at SIGHUP, and shows which one it has.
load() {
  /bin/busybox cat /certificates/fullchain.pem > /seen/new
  /bin/busybox mv /seen/new /seen/fullchain.pem
}
trap load HUP
load
while :; do /bin/busybox sleep 0.2; done
