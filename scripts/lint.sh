#!/bin/sh
# Checks everything that is not Python: Dockerfiles, shell, workflows, Prometheus rules and spelling.
# usage: scripts/lint.sh [--all]
# hadolint, zizmor and codespell come from requirements/dev.lock; PyPI has no package of the other three programs. Without --all,
# those that are not installed are named and skipped. CI installs them and passes --all.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
require="${1:-}"
result=0

# lint PROGRAM INSTALL ARGUMENT...: run PROGRAM, or print how to install it.
lint() {
    program="$1" install="$2"
    shift 2
    if command -v "$program" > /dev/null; then
        if ! output="$("$program" "$@" 2>&1)"; then
            printf '%s\n%s: failed\n' "$output" "$program" >&2
            result=1
        fi
    elif [ "$require" = --all ]; then
        printf '%s: not installed; %s\n' "$program" "$install" >&2
        result=1
    else
        printf '%s: skipped, not installed; %s\n' "$program" "$install" >&2
    fi
}

lint hadolint "run scripts/bootstrap.sh dev" --no-color images/*/Dockerfile benchmarks/*/Dockerfile
lint zizmor "run scripts/bootstrap.sh dev" --offline --no-progress --color never .github
lint codespell "run scripts/bootstrap.sh dev"
lint shellcheck "apt-get install shellcheck, or brew install shellcheck" scripts/*.sh images/*/*.sh .ci/run
lint promtool "apt-get install prometheus, or brew install prometheus" check config compose/observability/prometheus.yml
lint actionlint "brew install actionlint, or go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
exit "$result"
