#!/bin/sh
# Install CloudLunacy into a virtual environment of its own and print the folder with its program.
#
#   CLOUDLUNACY_SOURCE  what pip installs: a folder, or a URL with a commit. A bare name is refused: it would be looked
#                       up in a public index, where anybody may have taken it.
#   PYTHON              the interpreter, 3.11 or newer (default: python3)
#
# Python is isolated (-I): else it would look for modules in the working directory, which the pull request wrote.
set -eu
case "${CLOUDLUNACY_SOURCE:-}" in
  *://* | /*) ;;
  *)
    echo "Set CLOUDLUNACY_SOURCE to a folder or a URL with a commit, such as git+https://git.example.com/platform/cloudlunacy.git@<commit>." >&2
    exit 1
    ;;
esac
folder="${RUNNER_TEMP:-${TMPDIR:-/tmp}}/cloudlunacy-review"
"${PYTHON:-python3}" -I -m venv --clear "$folder" >&2
"$folder/bin/python" -I -m pip install --quiet --disable-pip-version-check -- "$CLOUDLUNACY_SOURCE" >&2
echo "$folder/bin"
