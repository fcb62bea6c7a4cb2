#!/bin/sh
# Runs the package `deploy` on this machine, or on HOST over ssh:
# run.sh deploy WHEEL [SOURCES] | serves SOURCES | rollback | undeploy [--purge]
# Environment: HOST, KAZOO_IPS_ROOT (a directory instead of /), PYTHON (on that machine; python3) and
# SSH (ssh, with options).
set -eu
cd "$(dirname "$0")/.."
action=$1
argument=${2:-}
sources=${3:-}
python=${PYTHON:-python3}
root=${KAZOO_IPS_ROOT:-/}
unset KAZOO_IPS_ROOT # the service would refuse it as an unknown setting

# shellcheck disable=SC2016 # the machine itself evaluates `id -u`
sudo='$([ "$(id -u)" = 0 ] || echo sudo)'
[ "$root" = / ] || sudo=
check="$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo '$python is not Python 3.11 or newer: set PYTHON=...' >&2; exit 1; }"
command="$sudo $python -B -m deploy --root '$root' $action $argument $sources"

[ -n "${HOST:-}" ] || exec sh -c "$check; $command"

remote() {
    # shellcheck disable=SC2086 # ssh with its options is several words
    ${SSH:-ssh} "$@"
}

folder=$(remote "$HOST" 'mktemp -d')
trap 'remote "$HOST" "rm -rf $folder"' EXIT
set -- deploy
[ "$action" != deploy ] || set -- deploy "$argument"
tar -cf - "$@" | remote "$HOST" "tar -xf - -C $folder"
terminal=
[ ! -t 0 ] || terminal=-t # sudo may ask for a password
# shellcheck disable=SC2086 # -t, or nothing
remote $terminal "$HOST" "cd $folder && $check; $command"
