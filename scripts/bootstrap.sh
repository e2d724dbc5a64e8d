#!/bin/sh
# Makes or updates .venv from a lock with hashes. It runs before Python can, so it is shell and thin.
# usage: scripts/bootstrap.sh host|dev
set -eu
cd "$(dirname "$0")/.."
lock="requirements/${1:-host}.lock"
stamp=".venv/.io3ops-${1:-host}"
inputs="$(cat "$lock" pyproject.toml "$0" | cksum)"
# The moved-clone check: a virtual environment knows its own absolute path and does not work elsewhere.
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$inputs $PWD" ] && [ -x .venv/bin/io3ops ]; then exit 0; fi
# dev.lock holds all of host.lock.
if [ "${1:-host}" = host ] && [ "$(cat .venv/.io3ops-dev 2>/dev/null || true)" = "$(cat requirements/dev.lock pyproject.toml "$0" | cksum) $PWD" ]; then exit 0; fi

fail() { printf 'error E13 [files] %s\n\nhint: %s\n' "$1" "$2" >&2; exit 13; }
say() { printf '> python   %s\n' "$1" >&2; }
started=$(date +%s)

if ! mkdir -p .venv 2>/dev/null || ! [ -w .venv ]; then
    fail "$PWD cannot be written" "io3ops keeps .venv and its state in the clone: clone to a place that is yours"
fi
if [ -e .venv/bin/python ] && ! { .venv/bin/python -c '' 2>/dev/null && [ "$(cat .venv/.io3ops-path 2>/dev/null)" = "$PWD" ]; }; then rm -rf .venv; fi

if command -v uv >/dev/null 2>&1; then
    say "making .venv with uv from $lock"
    [ -x .venv/bin/python ] || uv venv --quiet --allow-existing --python '>=3.11' .venv ||
        fail "uv could not make .venv" "the lines above are uv's own; Python 3.11 or newer is needed"
    VIRTUAL_ENV="$PWD/.venv" uv pip install --quiet --require-hashes -r "$lock" &&
        VIRTUAL_ENV="$PWD/.venv" uv pip install --quiet --no-deps --no-build-isolation -e . ||
        fail "the packages of $lock could not be installed" "is the package index reachable? The lines above are uv's own"
else
    python=
    for candidate in python3.13 python3.12 python3.11 python3.14 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$candidate"; break; fi
    done
    [ -n "$python" ] || fail "Python 3.11 or newer is missing" "install python3, or uv"
    say "making .venv with $python and pip from $lock"
    if ! [ -x .venv/bin/python ] && ! "$python" -m venv .venv >/dev/null 2>&1; then
        # Debian and Ubuntu ship Python without the part that makes virtual environments.
        if [ "$(id -u)" = 0 ] && [ "${IO3OPS_INSTALL_DOCKER:-auto}" != never ] && command -v apt-get >/dev/null 2>&1; then
            say "installing python3-venv from the distribution"
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv; } >/dev/null 2>&1 || true
        fi
        rm -rf .venv
        "$python" -m venv .venv || fail "$python cannot make a virtual environment" "install python3-venv (Debian, Ubuntu), or uv"
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" &&
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
        fail "the packages of $lock could not be installed" "is the package index reachable? The lines above are pip's own"
fi
printf '%s' "$PWD" > .venv/.io3ops-path
printf '%s' "$inputs $PWD" > "$stamp"
say "ready ($(($(date +%s) - started)) s)"
