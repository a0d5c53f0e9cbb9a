#!/bin/sh
# Check and plan a pull request: what the GitHub Action and the GitLab template run, and what a person can run by hand
# in a state repo.
#
#   sh ci/review.sh [DIR]
#
#   CLOUDLUNACY_BASE         what the plan compares with (default: the base of the pull request that CI is for)
#   CLOUDLUNACY_OUT          folder for problems.json, plan.json, plan.md and validate.xml (default: cloudlunacy-review)
#   CLOUDLUNACY_FORGE_TOKEN  token that may comment; without it nothing is posted
#   CLOUDLUNACY_BIN          folder of the program (default: that on PATH)
set -eu
PATH="${CLOUDLUNACY_BIN:+$CLOUDLUNACY_BIN:}$PATH"
export PATH
set -- "${1:-.}" --out "${CLOUDLUNACY_OUT:-cloudlunacy-review}"
if [ -n "${CLOUDLUNACY_BASE:-}" ]; then
  set -- "$@" "--base=$CLOUDLUNACY_BASE"
fi
exec cloudlunacy review "$@"
