package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// fuzzMax bounds the run; fuzzed requests are added until it is spent.
	fuzzMax = 60 * time.Second

	// unasked ends the count of outcomes that were unknown for no reason of the client's.
	unasked = " though it could take its time"

	// envSeed repeats a run. Without it the seed is always the same, so that CI's verdict is.
	envSeed     = "FOLDSTREAM_TEST_SEED"
	seedDefault = "1"
)

// fuzzAnswers must be among a run's answers, lest it only ever knocked at the door.
var fuzzAnswers = []string{
	"POST /v1/streams/{category}/{id}/events 201", "POST /v1/streams/{category}/{id}/events 200",
	"POST /v1/streams/{category}/{id}/events 400", "POST /v1/streams/{category}/{id}/events 409",
	"POST /v1/append 200", "POST /v1/append 400",
	"POST /v1/commands/{category}/{id} 201", "POST /v1/commands/{category}/{id} 422",
	"GET /v1/streams/{category}/{id}/events 200", "GET /v1/streams/{category}/{id}/state 200", "GET /v1/subscribe 200",
}

// appendOne leaves an event, so that a subscription has something to say.
func appendOne(t *testing.T, w *world) {
	t.Helper()
	body := `{"events": [{"type": "invoice.Paid", "data": {"amount": 1}}]}`
	answer, err := http.Post(w.http+"/v1/streams/invoice/first/events", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		t.Fatalf("append an event: got status %d, want 201", answer.StatusCode)
	}
}

// runSchemathesis holds the HTTP API to the OpenAPI document that it serves.
func runSchemathesis(t *testing.T, w *world) {
	program := filepath.Join(filepath.Dir(python(t, "clients/python/requirements.txt")), "st")
	seed := os.Getenv(envSeed)
	if seed == "" {
		seed = seedDefault
	}
	appendOne(t, w)
	counted := filepath.Join(t.TempDir(), "answers.json")
	ctx, cancel := context.WithTimeout(t.Context(), 2*fuzzMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--config-file", absolute(t, "schemathesis/schemathesis.toml"), "run", w.http+"/openapi.json",
		"--phases", "examples,coverage,fuzzing", "--max-time", strconv.Itoa(int(fuzzMax.Seconds())), "--seed", seed,
		"--suppress-health-check", "all", "--generation-database", "none", "--no-shrink", "--no-color", "--warnings", "off")
	cmd.Dir = t.TempDir()
	cmd.Env = append(environment(), "PYTHONPATH="+absolute(t, "schemathesis"), "PYTHONDONTWRITEBYTECODE=1",
		"SHOP_SEED="+seed, "SHOP_ANSWERS="+counted)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("schemathesis, seed %s: %v\n%s", seed, err, out)
	}
	var answers map[string]int
	if err := json.Unmarshal([]byte(readFile(t, counted)), &answers); err != nil {
		t.Fatalf("read the counts of answers: %v", err)
	}
	total := 0
	for _, answer := range slices.Sorted(maps.Keys(answers)) {
		t.Logf("%6d %s", answers[answer], answer)
		total += answers[answer]
		if strings.HasSuffix(answer, unasked) {
			t.Errorf("%d requests that named no timeout were answered %q", answers[answer], answer)
		}
	}
	for _, answer := range fuzzAnswers {
		if answers[answer] == 0 {
			t.Errorf("no request was answered %q: the run did not get that far", answer)
		}
	}
	fmt.Printf("interop: schemathesis, seed %s: %d requests\n", seed, total)
}
