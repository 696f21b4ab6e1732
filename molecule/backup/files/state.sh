#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The records of a host: rows, files and what belongs to them. Not the canaries, which each backup renews.
set -eu
cd /tmp
runuser -u postgres -- psql -XAtq -d records \
  -c "SELECT count(*), md5(string_agg(births::text, ',' ORDER BY id)) FROM births" \
  -c "SELECT relname, relkind, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
cd /srv/documents
find . -mindepth 1 ! -name .civitas-canary -printf '%P %y %m %U %G %s %l\n' | sort
find . -type f ! -name .civitas-canary -exec sha256sum {} + | sort -k 2
