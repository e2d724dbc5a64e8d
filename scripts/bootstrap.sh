#!/bin/sh
# Makes or updates .venv from a lock with hashes. It must run before Python can, so it is shell, and short.
# usage: [IO3OPS_PYTHON=python3.14] scripts/bootstrap.sh host|dev
set -eu
cd "$(dirname "$0")/.."
kind="${1:-host}"
lock="requirements/$kind.lock"
stamp=".venv/.io3ops-$kind"
inputs_of() { printf '%s %s' "$(cat "requirements/$1.lock" pyproject.toml scripts/bootstrap.sh | cksum)" "$PWD"; }
# Skip a current .venv. The stamp contains the path of the clone, because a virtual environment does not work in another place.
# dev.lock contains all of host.lock, so its .venv serves both.
for made in "$kind" dev; do
    if [ "$(cat ".venv/.io3ops-$made" 2>/dev/null || true)" = "$(inputs_of "$made")" ] && [ -x .venv/bin/io3ops ]; then exit 0; fi
done

fail() { printf 'error E13 [files] %s\n\nhint: %s\n' "$1" "$2" >&2; exit 13; }
say() { printf '> python   %s\n' "$1" >&2; }
started=$(date +%s)

if ! mkdir -p .venv 2>/dev/null || ! [ -w .venv ]; then
    fail "$PWD cannot be written" "io3ops keeps .venv and its state in the clone: clone to a folder that you can write"
fi
if [ -e .venv/bin/python ] && ! { .venv/bin/python -c '' 2>/dev/null && [ "$(cat .venv/.io3ops-path 2>/dev/null)" = "$PWD" ]; }; then rm -rf .venv; fi

python=
for candidate in ${IO3OPS_PYTHON:-python3.13 python3.12 python3.11 python3.14 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$candidate"; break; fi
done
[ -n "$python" ] || [ -z "${IO3OPS_PYTHON:-}" ] || fail "IO3OPS_PYTHON=$IO3OPS_PYTHON does not start a Python 3.11 or newer" "correct or unset IO3OPS_PYTHON"
uv="$(command -v uv || true)"
say "making .venv from $lock"
if [ -n "$uv" ]; then
    [ -x .venv/bin/python ] || "$uv" venv --quiet --allow-existing --python "${python:->=3.11}" .venv ||
        fail "uv could not make .venv" "the lines above are uv's own; io3ops needs Python 3.11 or newer"
else
    [ -n "$python" ] || fail "there is no Python 3.11 or newer" "install python3, or uv"
    if ! [ -x .venv/bin/python ] && ! "$python" -m venv .venv >/dev/null 2>&1; then
        # Debian and Ubuntu have the part of Python that makes virtual environments in a package of its own.
        rm -rf .venv
        if [ "$(id -u)" = 0 ] && [ "${IO3OPS_INSTALL_DOCKER:-auto}" != never ] && command -v apt-get >/dev/null 2>&1; then
            say "installing python3-venv from the distribution"
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv; } >/dev/null 2>&1 || true
        fi
        "$python" -m venv .venv || fail "$python cannot make a virtual environment" "install python3-venv (Debian, Ubuntu), or uv"
    fi
    # uv needs a tenth of pip's time. If its wheel cannot be downloaded, use pip.
    if .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock 2>/dev/null; then uv=.venv/bin/uv; fi
fi
fill() { "$@" --quiet --require-hashes -r "$lock" && "$@" --quiet --no-deps --no-build-isolation -e .; }
export VIRTUAL_ENV="$PWD/.venv" PIP_DISABLE_PIP_VERSION_CHECK=1
# If uv fails, try pip, which reads a company's pip.conf.
{ [ -n "$uv" ] && fill "$uv" pip install; } || { .venv/bin/python -m pip --version >/dev/null 2>&1 && fill .venv/bin/python -m pip install; } ||
    fail "the packages of $lock could not be installed" "check that the package index is reachable, through your proxy and with your certificates; the lines above are the installer's"
printf '%s' "$PWD" > .venv/.io3ops-path
inputs_of "$kind" > "$stamp"
say "ready ($(($(date +%s) - started)) s)"
