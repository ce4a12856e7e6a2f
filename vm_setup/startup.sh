#!/usr/bin/env bash
# comfyweb host bundle @VERSION@
# Unpacks the program behind it and lets it bring the machine to what its metadata wants. Safe on every boot: docs/host.md
set -euo pipefail

version='@VERSION@'
sha256='@SHA256@'
home=/opt/comfyweb

# Tell the page, by way of Google, what is said here: no program of ours runs yet that could.
fail() {
  echo "comfyweb: $1"
  boot=$(cat /proc/sys/kernel/random/boot_id)
  at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  printf '{"boot_id":"%s","at":"%s","phase":"warming","steps":[{"name":"packages","state":"failed","detail":"%s"}],"warnings":["%s"]}' \
    "$boot" "$at" "$1" "$1" |
    curl -sS -m 5 -X PUT -H 'Metadata-Flavor: Google' --data-binary @- \
      http://169.254.169.254/computeMetadata/v1/instance/guest-attributes/comfyweb/phase || true
  exit 1
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.10 /opt/conda/bin/python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

# Written beside, flushed, checked and renamed: a file under its own name is whole.
unpack() {
  local program=$home/$version/comfyweb.pyz
  if ! echo "$sha256  $program" | sha256sum --check --status 2>/dev/null; then
    sed '1,/^__PAYLOAD__$/d' "$0" | base64 --decode >"$program.new" 2>/dev/null || true
    echo "$sha256  $program.new" | sha256sum --check --status || fail 'The host bundle arrived damaged. Load it up again.'
    sync "$program.new"
    mv -f "$program.new" "$program"
    sync "$home/$version"
  fi
  if [ "$(readlink "$home/current" || true)" != "$version" ]; then
    ln -sfn "$version" "$home/.current.new"
    mv -fT "$home/.current.new" "$home/current"
    sync "$home"
  fi
}

main() {
  local python
  [ "$(id -u)" = 0 ] || fail 'The host bundle must run as root.'
  python=$(find_python) || fail 'The machine has no Python 3.10 or newer. Use Debian 12, Ubuntu 22.04, or newer images.'
  mkdir -p "$home"
  (flock 9 && mkdir -p "$home/$version" && unpack) 9>"$home/.unpack.lock" # it may be started twice at once, and another may clear up
  exec "$python" "$home/current/comfyweb.pyz" reconcile
}

main
exit
