package interop

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// fuzzMax bounds the run; fuzzed requests are added until it is spent.
	fuzzMax = 60 * time.Second
	// fuzzCasesMin is far below what a run makes, and far above what one against a document
	// without operations would.
	fuzzCasesMin = 500

	// envSeed repeats a run. Without it the seed is always the same, so that CI's verdict is.
	envSeed     = "FOLDSTREAM_TEST_SEED"
	seedDefault = "1"
)

// fuzzChecks are what an answer is held to. Not among them: that what the document allows is
// taken, since types, categories and versions are known to the project only.
var fuzzChecks = []string{
	"not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
	"response_schema_conformance", "negative_data_rejection", "unsupported_method", "missing_required_header",
}

var fuzzCases = regexp.MustCompile(`(\d+) generated`)

// runSchemathesis holds the HTTP API to the OpenAPI document that it serves.
func runSchemathesis(t *testing.T, w *world) {
	if w.latest {
		t.Skip("the HTTP API is the same whatever the registry")
	}
	program := filepath.Join(filepath.Dir(python(t, "clients/python/requirements.txt")), "st")
	seed := os.Getenv(envSeed)
	if seed == "" {
		seed = seedDefault
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*fuzzMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--config-file", absolute(t, "schemathesis.toml"), "run", w.http+"/openapi.json",
		"--checks", strings.Join(fuzzChecks, ","), "--phases", "examples,coverage,fuzzing",
		"--max-time", strconv.Itoa(int(fuzzMax.Seconds())), "--request-timeout", "40", "--seed", seed,
		// It never ends by itself; its faults have tests of their own.
		"--exclude-path", "/v1/subscribe",
		"--suppress-health-check", "all", "--generation-database", "none", "--no-shrink", "--no-color", "--warnings", "off")
	cmd.Dir, cmd.Env = t.TempDir(), environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("schemathesis, seed %s: %v\n%s", seed, err, out)
	}
	found := fuzzCases.FindSubmatch(out)
	if found == nil {
		t.Fatalf("schemathesis says nothing of its cases:\n%s", out)
	}
	if cases, _ := strconv.Atoi(string(found[1])); cases < fuzzCasesMin {
		t.Errorf("schemathesis made %d cases, want %d at least:\n%s", cases, fuzzCasesMin, out)
	}
	fmt.Printf("interop: schemathesis, seed %s: %s\n", seed, found[0])
}
