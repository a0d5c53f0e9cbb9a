#!/bin/sh
# Install CloudLunacy into a virtual environment of its own and print the folder with its program.
#
#   CLOUDLUNACY_SOURCE  what pip installs: a folder, or a URL with a commit. A bare name is refused: it would be looked
#                       up in a public index, where anybody may have taken it.
#   PYTHON              the interpreter, 3.11 or newer (default: python3)
set -eu
case "${CLOUDLUNACY_SOURCE:-}" in
  *://* | /*) ;;
  *)
    echo "Set CLOUDLUNACY_SOURCE to a folder or a URL with a commit, such as git+https://git.example.com/platform/cloudlunacy.git@<commit>." >&2
    exit 1
    ;;
esac
folder="${RUNNER_TEMP:-${TMPDIR:-/tmp}}/cloudlunacy-review"
"${PYTHON:-python3}" -m venv --clear "$folder" >&2
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -- "$CLOUDLUNACY_SOURCE" >&2
echo "$folder/bin"
