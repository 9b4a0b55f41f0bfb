#!/usr/bin/env bash
# Runs go test with the arguments given, and says loudly at the end which backends were missing.
# The test kit appends one line to FOLDSTREAM_MISSING_FILE for each; with FOLDSTREAM_REQUIRE_ALL=1
# it fails the test instead.
set -uo pipefail

missing=$(mktemp)
trap 'rm -f "$missing"' EXIT
export FOLDSTREAM_MISSING_FILE=$missing

"${GO:-go}" test -timeout "${TEST_TIMEOUT:-9m}" "$@"
status=$?

if [[ -s $missing ]]; then
	echo
	echo '==================== BACKENDS THAT WERE MISSING ===================='
	sort -u "$missing" | sed 's/^/  /'
	echo '  The tests on them were left out. FOLDSTREAM_REQUIRE_ALL=1 makes that a failure.'
	echo '===================================================================='
	if [[ ${FOLDSTREAM_REQUIRE_ALL:-} == 1 ]]; then
		exit 1
	fi
fi
exit "$status"
