package app_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
)

// start runs services until the test ends.
func start(t *testing.T, services *app.Services) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- services.Run(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("got %v, want an orderly end", err)
		}
		services.Close()
	})
	awaitReady(t, services)
}

func TestQueriesSeeWhatWasJustWritten(t *testing.T) {
	t.Parallel()
	kafka, postgres := testkit.Kafkas(t)[0], testkit.Postgreses(t)[0]
	cfg := service.DefaultConfig()
	cfg.Kafka.Brokers, cfg.HTTP.Addr = kafka.Seeds(), "127.0.0.1:0"
	cfg.Postgres.DSN = service.Secret(postgres.NewDatabase(t))
	namespace := testkit.Namespace(t)
	environment := func() *app.Environment {
		env, err := app.NewEnvironment(reference.Program("foldstream"), app.Settings{Namespace: namespace, Config: cfg, Logs: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		env.Project.ReplicationFactor = 1
		return env
	}
	env := environment()
	if err := env.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	writers, err := env.OpenServices(t.Context(), app.Which{Ingest: true, Projector: true})
	if err != nil {
		t.Fatal(err)
	}
	start(t, writers)
	cfg.Kafka.Brokers = nil // the read side needs none
	cfg.HTTP.TokenFile = filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(cfg.HTTP.TokenFile, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	readers, err := environment().OpenQuery()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(readers.Names()); got != "[query]" {
		t.Errorf("services: got %s", got)
	}
	start(t, readers)
	for i := range 5 {
		id := fmt.Sprint("w", i)
		if status, text := ask(t, http.MethodPost, writers.URL()+"/v1/commands/workflow/"+id, `{"type": "workflow.CreateWorkflow", "data": {"name": "Bill", "tags": ["a"]}}`, ""); status != http.StatusCreated {
			t.Fatalf("command: got %d %s", status, text)
		}
		status, text := ask(t, http.MethodGet, readers.URL()+"/v1/workflows/"+id+"?wait=workflow/"+id+"@1&wait_ms=20000", "", "sesame")
		if status != http.StatusOK || !strings.Contains(text, `"tags":["a"]`) {
			t.Fatalf("query: got %d %s", status, text)
		}
	}
	for path, want := range map[string]int{
		"/v1/views/workflow_list?tags.has=a&sort=-created_at&limit=2":         http.StatusOK,
		"/v1/views/events?category=workflow&wait=workflow/w0@1&wait_ms=20000": http.StatusOK,
		"/v1/statistics/executions":                                           http.StatusOK, "/v1/statistics/nodes": http.StatusOK, "/openapi.json": http.StatusOK, "/v1/nope": http.StatusNotFound,
	} {
		if status, text := ask(t, http.MethodGet, readers.URL()+path, "", "sesame"); status != want {
			t.Errorf("%s: got %d %s, want %d", path, status, text, want)
		}
	}
	if status, _ := ask(t, http.MethodGet, readers.URL()+"/v1/views", "", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: got %d, want 401", status)
	}
}

func TestTheQueryServiceSaysWhatItNeeds(t *testing.T) {
	t.Setenv("PGHOST", "")
	t.Setenv("PGSERVICE", "")
	run := func(args ...string) result {
		root := app.NewServiceCommand(reference.Program("query"), "query")
		var stdout, stderr strings.Builder
		code := app.ExecuteContext(t.Context(), nil, root, args, &stdout, &stderr)
		return result{code, stdout.String(), stderr.String()}
	}
	run("--http-addr", "127.0.0.1:0").want(t, service.ExitUsage, "no Postgres server is named", "--dsn")
	run("--nope").want(t, service.ExitUsage, "--nope")
	got := run("--print-config", "--dsn", "postgres://h/d")
	got.want(t, 0)
	if !strings.Contains(got.stdout, "pool_max") {
		t.Errorf("configuration: got %s", got.stdout)
	}
}

func TestAnotherProjectHasNoneOfTheReferenceAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, appendProject("")); err != nil {
		t.Fatal(err)
	}
	cfg := service.DefaultConfig()
	cfg.HTTP.Addr, cfg.Postgres.DSN = "127.0.0.1:0", "postgres://127.0.0.1:1/none"
	env, err := app.NewEnvironment(reference.Program("query"), app.Settings{ProjectDir: dir, Config: cfg, Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	services, err := env.OpenQuery()
	if err != nil {
		t.Fatal(err)
	}
	defer services.Close()
	if err := services.Ready(); err == nil {
		t.Error("ready without a Postgres")
	}
	wrong := query.Definitions{Resources: []query.Resource{{Path: "x"}}}
	program := reference.Program("query")
	program.Stock, program.Answers = false, wrong
	mine, err := app.NewEnvironment(program, app.Settings{Config: cfg, Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mine.OpenQuery(); err == nil || !strings.Contains(err.Error(), "resource x") {
		t.Errorf("a wrong definition: got %v", err)
	}
}

// The flags of a binary of one service are its own: a copy of what they are bound to would ignore
// them all.
func TestBinariesOfOneServiceHeedTheirFlags(t *testing.T) {
	for _, name := range []string{"ingest", "projector", "query"} {
		run := func(args ...string) result {
			root := app.NewServiceCommand(reference.Program(name), name)
			var stdout, stderr strings.Builder
			code := app.ExecuteContext(t.Context(), nil, root, args, &stdout, &stderr)
			return result{code, stdout.String(), stderr.String()}
		}
		if got := run("--print-config", "--http-addr", "127.0.0.1:4711"); got.code != 0 || !strings.Contains(got.stdout, "127.0.0.1:4711") {
			t.Errorf("%s --print-config: got %d %q %s", name, got.code, got.stdout, got.stderr)
		}
		run("--project", "/nowhere", "--brokers", "127.0.0.1:1", "--dsn", "postgres://127.0.0.1:1/none").want(t, service.ExitNotFound, "--project /nowhere")
	}
}
