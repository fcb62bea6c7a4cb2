#!/bin/sh
# Runs the package `deploy` here, or on HOST over ssh: run.sh deploy WHEEL, rollback, undeploy [--purge]
# From the environment: HOST, KAZOO_IPS_ROOT (a folder instead of /), PYTHON (the machine's; python3)
# and SSH (ssh, with options).
set -eu
cd "$(dirname "$0")/.."
action=$1
argument=${2:-}
python=${PYTHON:-python3}
root=${KAZOO_IPS_ROOT:-/}
unset KAZOO_IPS_ROOT # the service knows no setting of that name

# shellcheck disable=SC2016 # it is the machine's to know who one is
sudo='$([ "$(id -u)" = 0 ] || echo sudo)'
[ "$root" = / ] || sudo=
check="$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo '$python is not Python 3.11 or newer: name one with PYTHON=...' >&2; exit 1; }"
command="$sudo $python -B -m deploy --root '$root' $action $argument"

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
[ ! -t 0 ] || terminal=-t # for sudo's question
# shellcheck disable=SC2086 # -t, or nothing
remote $terminal "$HOST" "cd $folder && $check; $command"
