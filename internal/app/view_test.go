package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
)

// twoVersions is the reference program with a second version of one view.
func twoVersions() app.Program {
	p := reference.Program("foldstream")
	second := views.WorkflowList()
	second.Version = 2
	p.Views = append(p.Views, second)
	return p
}

func TestAViewIsRebuiltComparedSwitchedAndDroppedByCommand(t *testing.T) {
	t.Parallel()
	kafka, postgres := testkit.Kafkas(t)[0], testkit.Postgreses(t)[0]
	cfg := service.DefaultConfig()
	cfg.Kafka.Brokers, cfg.HTTP.Addr = kafka.Seeds(), "127.0.0.1:0"
	dsn := postgres.NewDatabase(t)
	cfg.Postgres.DSN = service.Secret(dsn)
	namespace := testkit.Namespace(t)
	env, err := app.NewEnvironment(twoVersions(), app.Settings{Namespace: namespace, Config: cfg, Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	env.Project.ReplicationFactor = 1
	if err := env.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	services, err := env.OpenServices(t.Context(), app.Which{Ingest: true, Projector: true})
	if err != nil {
		t.Fatal(err)
	}
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
	for i := range 5 {
		if status, text := ask(t, http.MethodPost, fmt.Sprintf("%s/v1/commands/workflow/w%d", services.URL(), i), `{"type": "workflow.CreateWorkflow", "data": {"name": "Bill", "tags": ["a"]}}`, ""); status != http.StatusCreated {
			t.Fatalf("command: got %d %s", status, text)
		}
	}
	view := func(words ...string) result {
		args := append([]string{"view"}, words...)
		return call(t.Context(), twoVersions(), append(args, "--namespace", namespace, "--brokers", strings.Join(kafka.Seeds(), ","), "--dsn", dsn)...)
	}
	live := func() (version int) {
		t.Helper()
		got := view("list", "workflow_list", "-o", "json")
		got.want(t, 0)
		var all []projector.VersionStatus
		if err := json.Unmarshal([]byte(got.stdout), &all); err != nil {
			t.Fatalf("list: %v in %s", err, got.stdout)
		}
		for _, s := range all {
			if s.Live {
				version = s.Version
			}
		}
		return version
	}
	wantLive := func(want int) {
		t.Helper()
		if got := live(); got != want {
			t.Errorf("live: got version %d, want %d", got, want)
		}
	}
	view("rebuild", "workflow_list", "--from-start").want(t, 0, "nothing was done")
	view("rebuild", "workflow_list", "--from-start", "--execute", "--yes").want(t, 0, "workflow_list.v2: read")
	view("verify", "workflow_list").want(t, 0, "v1 has 5 rows, v2 has 5, equal")
	view("switch", "workflow_list").want(t, 0, "nothing was switched")
	view("switch", "workflow_list", "--execute").want(t, service.ExitUsage, "--yes")
	wantLive(1)
	view("switch", "workflow_list", "--execute", "--yes", "--actor", "ada").want(t, 0)
	wantLive(2)
	view("rollback", "workflow_list").want(t, 0, "nothing was switched")
	wantLive(2)
	view("rollback", "workflow_list", "--execute", "--yes").want(t, 0)
	wantLive(1)
	view("audit", "workflow_list", "--all").want(t, 0, "5 checked of v1, folded by v1, 0 differ")
	view("rebuild", "workflow_list", "--streams", "w1,w2", "--to-version", "2").want(t, 0, "2 checked of v1, folded by v2, 0 differ")
	view("step", "workflow_list").want(t, service.ExitConflict, "pause it first")
	view("pause", "workflow_list", "--reason", "to look").want(t, 0)
	if got := view("list"); !strings.Contains(got.stdout, "live, paused") {
		t.Errorf("list: got %s, want a paused version", got.stdout)
	}
	view("step", "workflow_list").want(t, service.ExitNotFound, "no partition that was asked for has an event waiting")
	view("resume", "workflow_list").want(t, 0)
	view("skip", "workflow_list", "--partition", "0", "--offset", "0").want(t, service.ExitUsage, "--reason")
	view("skip", "workflow_list", "--partition", "0").want(t, service.ExitUsage, "offset")
	view("drop", "workflow_list", "1", "--execute", "--yes").want(t, service.ExitConflict, "live")
	view("drop", "workflow_list", "v2").want(t, 0, "nothing was dropped")
	view("drop", "workflow_list", "2", "--execute", "--yes").want(t, 0)
	view("verify", "workflow_list").want(t, service.ExitNotFound, "was dropped")
	view("rebuild", "nope").want(t, service.ExitNotFound, "no such view")
	view("drop", "workflow_list", "zwei").want(t, service.ExitUsage, "want a number")
}
