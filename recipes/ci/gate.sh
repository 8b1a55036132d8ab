#!/bin/sh
# Gates for a trained run in any CI: exit code 0 if all hold, 3 if one breaks, 2 if one cannot be checked.
#
#     recipes/ci/gate.sh RUN [more flags for `sdft eval`, such as --min-accuracy tooluse=0.6]
#
# Writes gates.xml (JUnit) and gates.md (for a pull request) into the working folder. Scores that the run already has are
# read, missing ones are measured. Variables: MAX_FORGETTING, MAX_PRIOR_DROP, GATE (point, proven or safe), SDFT (the
# command).
set -u

if [ $# -lt 1 ]; then
    echo "error: no run named" >&2
    echo "hint: recipes/ci/gate.sh runs/mine" >&2
    exit 2
fi
run=$1
shift
rm -f gates.xml gates.md

# SDFT may be several words, such as "python -m sdft_cli"
${SDFT:-sdft} eval "$run" \
    --max-forgetting "${MAX_FORGETTING:-0.02}" \
    --max-prior-drop "${MAX_PRIOR_DROP:-0.01}" \
    --gate "${GATE:-point}" \
    --junit gates.xml --markdown gates.md "$@"
code=$?

case $code in
0) echo "the run kept what it knew" ;;
3) echo "the run forgot, or fell short: see gates.md" >&2 ;;
*) echo "the gates could not be checked (exit $code)" >&2 ;;
esac
exit $code
