# shellcheck shell=sh
# Sourced by the RUN steps of the gateway Dockerfile: takes what the builder's network needs from optional
# build secrets. It lives only as long as one RUN and writes only to /tmp/build, which it removes at the end.
#   extra_ca             PEM bundle of a company's own certificate authorities
#   pip_index_url        replaces PyPI (may hold a password, hence a secret and not a build argument)
#   pip_extra_index_url  asked beside it
set -eu
mkdir -p /tmp/build
trap 'rm -rf /tmp/build' EXIT
secret() { if [ -s "/run/secrets/$1" ]; then cat "/run/secrets/$1"; fi; }

if [ -s /run/secrets/extra_ca ]; then
    # Added to the system's authorities, never instead of them: a proxy may intercept only some hosts.
    for bundle in /etc/ssl/certs/ca-certificates.crt /run/secrets/extra_ca; do
        if [ -f "$bundle" ]; then cat "$bundle"; echo; fi
    done > /tmp/build/ca.pem
    export SSL_CERT_FILE=/tmp/build/ca.pem PIP_CERT=/tmp/build/ca.pem
    echo 'Acquire::https::CAInfo "/tmp/build/ca.pem";' > /tmp/build/apt.conf
    export APT_CONFIG=/tmp/build/apt.conf
fi

index="$(secret pip_index_url)"
if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index" PIP_INDEX_URL="$index"; fi
extra_index="$(secret pip_extra_index_url)"
if [ -n "$extra_index" ]; then
    # Every file is checked against its hash, so taking the best match of both indexes is safe here.
    export UV_INDEX="$extra_index" UV_INDEX_STRATEGY=unsafe-best-match PIP_EXTRA_INDEX_URL="$extra_index"
fi

# apt_install PACKAGE...: Debian packages, from DEBIAN_MIRROR when set. Leaves no lists and no mirror behind.
apt_install() {
    set -- --yes --no-install-recommends "$@"
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        # shellcheck source=/dev/null
        suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
        printf 'deb %s main\n' "$DEBIAN_MIRROR $suite" "$DEBIAN_MIRROR $suite-updates" \
            "${DEBIAN_SECURITY_MIRROR:-${DEBIAN_MIRROR%/}-security} $suite-security" > /tmp/build/sources.list
        set -- -o Dir::Etc::SourceList=/tmp/build/sources.list -o Dir::Etc::SourceParts=/dev/null "$@"
        apt-get update -o Dir::Etc::SourceList=/tmp/build/sources.list -o Dir::Etc::SourceParts=/dev/null
    else
        apt-get update
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install "$@"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log
}
