#!/bin/sh
# Makes this machine an agent of a CloudLunacy fleet: docs/installing.md
#
#   1. finds a Python, and makes /opt/cloudlunacy/versions/<version>-<digest> with the control plane's own release
#   2. hands over to: cloudlunacy agent install, which enrols, writes a systemd unit and starts it
#
# It may be run again. Whoever fetched it from a control plane that they know by its key may trust it: the digest of the
# release stands below. Nothing is run before the last line was read.
set -eu

VERSION='@VERSION@'
WHEEL='@WHEEL@'
SHA256='@SHA256@'

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

usage() {
    cat <<'TEXT'
Usage: install.sh --server URL [--ca-sha256 HEX] --name NAME [--token-file FILE] [options]

  --token-file FILE    one-time token; - (the default) for standard input
  --wheel FILE         install this release, and fetch nothing from the control plane
  --find-links DIR     directory with wheels of what it needs, in place of an index
  --index-url URL      index for pip
  --python PROGRAM     Python 3.11 or newer (default: found)
  --root DIR           prepare the machine in this directory
  --dry-run            say what would be done

Everything else goes to: cloudlunacy agent install (--address, --capability, --label, --now)
TEXT
}

find_python() {
    for candidate in "$PYTHON" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            PYTHON=$candidate
            "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null \
                || fail "$PYTHON makes no virtual environments. On Debian and Ubuntu: apt-get install python3-venv"
            return
        fi
    done
    fail 'there is no Python 3.11 or newer here. On Debian 12 and Ubuntu 24.04: apt-get install python3 python3-venv'
}

fetch() {  # to the directory $1: the release, whose digest is known
    command -v curl >/dev/null || fail 'there is no curl here; install it, or give the release with --wheel.'
    # what comes is believed for its digest alone, so it does not matter who sends it
    curl -q --fail --silent --show-error --insecure --max-time 300 --output "$1/$WHEEL" "$SERVER/install/$WHEEL" \
        || fail "the release cannot be fetched from $SERVER."
    printf '%s  %s\n' "$SHA256" "$1/$WHEEL" | sha256sum --check --status \
        || fail 'what came is not the release that this script was made for. Nothing was installed.'
}

main() {
    SERVER='' NAME='' TOKEN_FILE='-' ROOT='' RELEASE='' PYTHON='' DRY='' LINKS='' INDEX=''
    count=$#
    while [ "$count" -gt 0 ]; do  # what is for the program goes back to the end of the list
        option=$1
        shift
        count=$((count - 1))
        value=''
        case $option in
            --server | --name | --token-file | --root | --wheel | --python | --find-links | --index-url)
                [ "$count" -gt 0 ] || fail "$option needs a value."
                value=$1
                shift
                count=$((count - 1))
                ;;
            --token) fail 'everybody on this machine would see the token there; give it on standard input, or --token-file.' ;;
        esac
        case $option in
            --server) SERVER=${value%/} ;;
            --name) NAME=$value ;;
            --token-file) TOKEN_FILE=$value ;;
            --root) ROOT=$value ;;
            --wheel) RELEASE=$value ;;
            --python) PYTHON=$value ;;
            --find-links) LINKS=$value ;;
            --index-url) INDEX=$value ;;
            --dry-run) DRY=yes ;;
            --help | -h) usage; return ;;
            *) set -- "$@" "$option" ;;
        esac
    done
    [ -n "$SERVER" ] && [ -n "$NAME" ] || { usage >&2; fail '--server and --name are needed.'; }
    if [ -z "$ROOT" ] && [ "$(id -u)" -ne 0 ]; then fail 'only root can do that; run it with sudo.'; fi
    if [ -z "$ROOT" ] && [ ! -d /run/systemd/system ]; then
        fail "this machine has no systemd, so nothing would start the agent. Install $WHEEL from $SERVER/install/$WHEEL by hand, then: cloudlunacy agent enrol, cloudlunacy agent run (docs/installing.md)"
    fi
    find_python

    opt=$ROOT/opt/cloudlunacy
    [ -z "$RELEASE" ] || SHA256=$(sha256sum "$RELEASE" | cut -d ' ' -f 1)
    [ -z "$RELEASE" ] || VERSION=$(basename "$RELEASE" | cut -d - -f 2)
    place=versions/$VERSION-$(printf '%.12s' "$SHA256")
    if [ -n "$DRY" ]; then
        [ -x "$opt/$place/bin/cloudlunacy" ] || say "would make $opt/$place with $($PYTHON --version) and release $VERSION"
        say "would run: cloudlunacy agent install --server $SERVER --name $NAME $* (again with --dry-run, once it is there)"
        return
    fi

    if [ "$("$opt/$place/bin/cloudlunacy" --version 2>/dev/null)" != "$VERSION" ]; then
        say "making $opt/$place"
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        if [ -z "$RELEASE" ]; then fetch "$work"; RELEASE=$work/$WHEEL; fi
        cat > "$work/constraints.txt" <<'TEXT'
@CONSTRAINTS@
TEXT
        rm -rf "${opt:?}/$place"
        mkdir -p "$opt/versions"
        chmod 755 "$opt" "$opt/versions"
        "$PYTHON" -m venv "$opt/$place" </dev/null
        "$opt/$place/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --constraint "$work/constraints.txt" ${INDEX:+--index-url "$INDEX"} ${LINKS:+--no-index --find-links "$LINKS"} \
            "$RELEASE" </dev/null || { rm -rf "${opt:?}/$place"; fail 'pip could not install it; nothing else was changed.'; }
    fi
    if [ ! -e "$opt/current" ]; then
        ln -s "$place" "$opt/current"
    elif [ "$(readlink "$opt/current")" != "$place" ]; then
        say "another release runs here; this one waits beside it: cloudlunacy agent upgrade --version $VERSION"
    fi
    mkdir -p "$ROOT/usr/local/bin"
    command=$ROOT/usr/local/bin/cloudlunacy
    [ -e "$command" ] || [ -L "$command" ] || ln -s /opt/cloudlunacy/current/bin/cloudlunacy "$command"

    set -- --server "$SERVER" --name "$NAME" --token-file "$TOKEN_FILE" "$@"
    [ -z "$ROOT" ] || set -- --root "$ROOT" "$@"
    "$opt/current/bin/cloudlunacy" agent install "$@"
}

main "$@"
