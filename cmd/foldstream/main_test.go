package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

func call(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = app.ExecuteContext(ctx, nil, newCommand(), args, &out, &err)
	return code, out.String(), err.String()
}

// TestDemoShowsFourViewsAndCounts is the whole system once: commands in, events, views out.
func TestDemoShowsFourViewsAndCounts(t *testing.T) {
	t.Parallel()
	const cases = 20
	code, stdout, stderr := call(t.Context(), "demo", "-o", "json", "--cases", fmt.Sprint(cases), "--rows", "3")
	if code != 0 {
		t.Fatalf("exit code: got %d\n%s", code, stderr)
	}
	var shown struct {
		Views []struct {
			Name      string
			TotalRows int `json:"total_rows"`
			Rows      [][]string
		}
		Import struct {
			Commands struct {
				Commands int
				Outcomes map[string]int
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil {
		t.Fatalf("stdout is no JSON: %v\n%s", err, stdout)
	}
	log, err := processlog.Read(bytes.NewReader(processlog.Sample(demoSeed, cases)), processlog.Options{Workflow: processlog.SampleWorkflow})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"fs.workflow_list": 1, "fs.execution_history": cases, "fs.node_metrics": len(log.Activities)}
	for _, v := range shown.Views {
		if n, known := want[v.Name]; known && v.TotalRows != n {
			t.Errorf("%s: got %d rows, want %d", v.Name, v.TotalRows, n)
		}
		if v.TotalRows == 0 || len(v.Rows) != min(3, v.TotalRows) {
			t.Errorf("%s: got %d of %d rows shown, want 3 or all", v.Name, len(v.Rows), v.TotalRows)
		}
	}
	commands, err := processlog.SampleCommands(demoSeed, cases)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, c := range commands {
		ids[c.ID] = true
	}
	got := shown.Import.Commands
	if len(shown.Views) != 4 || got.Commands != len(commands) {
		t.Errorf("got %d views and %d commands, want 4 and %d", len(shown.Views), got.Commands, len(commands))
	}
	o := got.Outcomes
	if repeated := len(commands) - len(ids); o["duplicate"] != repeated || repeated == 0 {
		t.Errorf("duplicates: got %d, want the %d commands that are sent twice", o["duplicate"], repeated)
	}
	if o["invalid"] != 0 || o["accepted"]+o["duplicate"]+o["conflict"]+o["rejected"] != len(commands) {
		t.Errorf("outcomes: got %v for %d commands", o, len(commands))
	}
}

// TestDevIsJoinedByAnImportAndDrains imports one file twice into a stack of another command.
func TestDevIsJoinedByAnImportAndDrains(t *testing.T) {
	t.Parallel()
	dataDir, file := t.TempDir(), filepath.Join(t.TempDir(), "orders.csv")
	if err := os.WriteFile(file, processlog.Sample(2, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	type ended struct {
		code   int
		stderr string
	}
	dev := make(chan ended, 1)
	go func() {
		code, _, stderr := call(ctx, "dev", "--ephemeral", "--data-dir", dataDir, "--log-level", "warn")
		dev <- ended{code, stderr}
	}()
	endpoints := filepath.Join(dataDir, devstack.EndpointsFile)
	testkit.Await(t, "the stack writes its addresses", time.Minute, func(context.Context) bool {
		_, err := os.Stat(endpoints)
		return err == nil
	})
	for run, want := range []string{"accepted", "duplicate"} {
		code, stdout, stderr := call(t.Context(), "import", "process-log", file, "--data-dir", dataDir, "-o", "json", "--rate", "100000")
		var result struct {
			Commands struct {
				Commands int
				Outcomes map[string]int
			}
		}
		if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 {
			t.Fatalf("import %d: got exit code %d and %v\n%s", run+1, code, err, stderr)
		}
		if got := result.Commands; got.Commands == 0 || got.Outcomes[want] != got.Commands {
			t.Errorf("import %d: got %+v, want all %s", run+1, got, want)
		}
	}
	cancel()
	if got := <-dev; got.code != 0 {
		t.Errorf("dev: got exit code %d, want an orderly end\n%s", got.code, got.stderr)
	}
	if _, err := os.Stat(endpoints); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", endpoints, err)
	}
}

func TestHowItIsCalledDecidesTheExitCode(t *testing.T) {
	t.Setenv("PGHOST", "")
	t.Setenv("PGSERVICE", "")
	file := filepath.Join(t.TempDir(), "log.csv")
	if err := os.WriteFile(file, []byte("case,activity,resource,timestamp\nc,a,r,yesterday\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"import"}, 0, ""},
		{[]string{"import", "process-log"}, service.ExitUsage, "accepts 1 arg"},
		{[]string{"import", "process-log", "/nowhere.csv", "--brokers", "a:1"}, service.ExitNotFound, "/nowhere.csv: there is no such file"},
		{[]string{"import", "process-log", "-", "--brokers", "a:1"}, service.ExitUsage, "--workflow"},
		{[]string{"import", "process-log", file, "--brokers", "a:1"}, 1, "line 2: "},
		{[]string{"dev", "--services", "some"}, service.ExitUsage, "--services some: want all or none"},
		{[]string{"dev", "--postgres", "nope"}, service.ExitUsage, "--postgres nope: want embedded"},
		{[]string{"dev", "--postgres", "postgres://u:geheim@h/d"}, service.ExitUsage, "--postgres has a password"},
		{[]string{"dev", "--postgres", "configured"}, service.ExitUsage, "no Postgres server is named"},
		{[]string{"dev", "--kafka", "configured"}, service.ExitUsage, "no Kafka broker is named"},
		{[]string{"demo", "--cases", "0"}, service.ExitUsage, "--cases 0"},
	} {
		code, _, stderr := call(t.Context(), c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "geheim") {
			t.Errorf("%v: got %d %q, want %d and %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

func TestBadLinesAreNamedAndKeptInTheirOwnForm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.csv")
	file := filepath.Join(dir, "log.csv")
	const text = "\ufeffcase,activity,resource,timestamp\r\nc-1,a,r,2026-03-01T09:00:00Z\nc-2,a,r,yesterday\nc-3,,r,2026-03-01T09:00:00Z\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := newCommand()
	cmd.SetErr(&stderr)
	log, err := readProcessLog(cmd, importOptions{skipBad: true, badFile: bad}, file)
	if err != nil {
		t.Fatal(err)
	}
	if log.Workflow.Name != "log" || log.Rows != 1 || log.BadLines != 2 {
		t.Errorf("got workflow %q, %d rows, %d bad lines, want log, 1, 2", log.Workflow.Name, log.Rows, log.BadLines)
	}
	kept, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(kept), "case,activity,resource,timestamp\nc-2,a,r,yesterday\nc-3,,r,2026-03-01T09:00:00Z\n"; got != want {
		t.Errorf("file of bad lines: got %q, want %q", got, want)
	}
	for _, want := range []string{"line 3 is left out: ", "line 4 is left out: ", bad} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr: got %q, want %q in it", stderr.String(), want)
		}
	}
}

func TestImportEndsByWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	failed := importResult{}
	failed.Report.Commands, failed.Report.Outcomes = 3, map[string]int{"rejected": 1, "accepted": 2}
	for _, c := range []struct {
		name   string
		err    error
		result importResult
		want   int
	}{
		{"all accepted", nil, importResult{}, 0},
		{"some rejected", nil, failed, service.ExitPartial},
		{"bad lines", nil, importResult{BadLines: 1}, service.ExitPartial},
		{"interrupted", fmt.Errorf("x: %w", service.ErrInterrupted), failed, service.ExitInterrupted},
		{"failed", os.ErrClosed, failed, service.ExitFailure},
	} {
		if got := service.ExitCode(importFailure(c.err, c.result)); got != c.want {
			t.Errorf("%s: got exit code %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTheStackIsShownWithoutItsPassword(t *testing.T) {
	t.Parallel()
	e := devstack.Endpoints{Brokers: []string{"a:1"}, DSN: "postgres://u:geheim@h/d", HTTP: map[string]string{"ingest": "http://x"}}
	if text := fmt.Sprint(shown(e), endpointsTable("d", e)); strings.Contains(text, "geheim") || !strings.Contains(text, "redacted") {
		t.Errorf("got %s", text)
	}
}
