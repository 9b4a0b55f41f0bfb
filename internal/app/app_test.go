package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

const issued = `{"type": "record", "namespace": "invoice", "name": "Issued", "fields": [{"name": "total", "type": "long"}]}`

// appendProject is a project without any Go.
func appendProject(settings string) fstest.MapFS {
	return fstest.MapFS{
		"foldstream.yaml":                   {Data: []byte("namespace: acme\npartitions: 2\ncategories: {invoice: {mode: append" + settings + "}}\n")},
		"schemas/invoice/Issued.v1.avsc":    {Data: []byte(issued)},
		"schemas/invoice/README.md":         {Data: []byte("ours")},
		"schemas/invoice/Cancelled.v1.avsc": {Data: []byte(strings.ReplaceAll(issued, "Issued", "Cancelled"))},
	}
}

// result is what one call of a program left.
type result struct {
	code           int
	stdout, stderr string
}

func call(ctx context.Context, p app.Program, args ...string) result {
	root, _ := app.NewCommand(p)
	var stdout, stderr bytes.Buffer
	code := app.ExecuteContext(ctx, nil, root, args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) want(t *testing.T, code int, stderr ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code: got %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.stdout, r.stderr)
	}
	for _, text := range stderr {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("stderr: got %q, want %q in it", r.stderr, text)
		}
	}
}

func TestHowItIsCalledDecidesTheExitCode(t *testing.T) {
	t.Parallel()
	shop := app.Program{Name: "shop", Project: appendProject("")}
	for _, c := range []struct {
		name   string
		p      app.Program
		args   []string
		code   int
		stderr []string
	}{
		{"help", shop, nil, 0, nil},
		{"help of a group", shop, []string{"topics"}, 0, nil},
		{"version", shop, []string{"version"}, 0, nil},
		{"an unknown command", shop, []string{"nope"}, service.ExitUsage, []string{"shop: ", "nope", "shop --help"}},
		{"an unknown command of a group", shop, []string{"topics", "nope"}, service.ExitUsage, []string{"nope"}},
		{"an unknown flag", shop, []string{"topics", "plan", "--nope"}, service.ExitUsage, []string{"--nope"}},
		{"an argument too many", shop, []string{"schema", "check", "x"}, service.ExitUsage, []string{"x"}},
		{"an unknown format", shop, []string{"version", "-o", "xml"}, service.ExitUsage, []string{"table, json, yaml"}},
		{"no broker", shop, []string{"topics", "plan"}, service.ExitUsage, []string{"no Kafka broker is named", "--brokers"}},
		{"a password flag", shop, []string{"all", "--dsn", "postgres://u:geheim@h/d"}, service.ExitUsage, []string{"--dsn has a password"}},
		{"a configuration that is wrong", shop, []string{"all", "--log-level", "loud"}, service.ExitUsage, []string{"log.level"}},
		{"no local stack", shop, []string{"topics", "plan", "--data-dir", "/nowhere"}, service.ExitNotFound, []string{"no local stack in /nowhere", "foldstream dev --data-dir /nowhere"}},
		{"no project folder", shop, []string{"schema", "check", "--project", "/nowhere"}, service.ExitNotFound, []string{"--project /nowhere: there is no such folder"}},
		{"a folder without a project", shop, []string{"schema", "check", "--project", t.TempDir()}, 1, []string{"foldstream.yaml: there is no such file"}},
		{"no project at all", app.Program{}, []string{"schema", "check"}, service.ExitUsage, []string{"--project"}},
		{"a bad namespace", shop, []string{"schema", "check", "--namespace", "No"}, service.ExitUsage, []string{`--namespace: namespace "No"`}},
		{"an unreachable broker", shop, []string{"topics", "plan", "--brokers", "127.0.0.1:1"}, 1, []string{"127.0.0.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := call(t.Context(), c.p, c.args...)
			got.want(t, c.code, c.stderr...)
			if c.code != 0 && got.stdout != "" {
				t.Errorf("stdout: got %q, want data only", got.stdout)
			}
			if strings.Contains(got.stderr, "geheim") {
				t.Errorf("stderr shows the secret: %s", got.stderr)
			}
		})
	}
}

func TestPrintConfigGoesToStdout(t *testing.T) {
	t.Parallel()
	got := call(t.Context(), app.Program{Project: appendProject("")}, "all", "--print-config", "--brokers", "a:1,b:2", "--http-addr", ":7")
	got.want(t, 0)
	if !strings.Contains(got.stdout, "- a:1\n    - b:2") || !strings.Contains(got.stdout, "addr: :7") {
		t.Errorf("got %s", got.stdout)
	}
}

type row struct {
	Total int64 `db:"total"`
}

type event struct {
	Total int64 `avro:"total"`
}

func entity(typ string, version int) projection.View {
	return projection.Entity(projection.EntitySpec[row]{
		Name: "invoices", Version: 1, Key: "id", On: []codec.TypeDef{projection.On[event](typ, version)},
		Fold: func(r row, _ bool, _ projection.Event) (row, projection.Change, error) { return r, projection.Set, nil },
	})
}

func TestProgramAndProjectMustAgree(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		p    app.Program
		want string
	}{
		{"a view of a category that is not there", app.Program{Views: []projection.View{entity("order.Placed", 1)}}, "view invoices reads category order, which foldstream.yaml does not have"},
		{"a view of a version that is not there", app.Program{Views: []projection.View{entity("invoice.Issued", 2)}}, "view invoices folds version 2 of invoice.Issued, which has no schema: add schemas/invoice/Issued.v2.avsc"},
		{"one version of a view twice", app.Program{Views: []projection.View{entity("invoice.Issued", 1), entity("invoice.Issued", 1)}}, "version 1 of view invoices twice"},
		{"a decider of a category in another mode", app.Program{Deciders: []decider.Any{reference.Program("x").Deciders[0]}}, `decides category "workflow", which foldstream.yaml does not have`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.p.Project = appendProject("")
			call(t.Context(), c.p, "schema", "check").want(t, 1, c.want)
		})
	}
}

func TestStockProgramsRunAnotherProjectWithoutTheirGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, appendProject("")); err != nil {
		t.Fatal(err)
	}
	call(t.Context(), reference.Program("foldstream"), "schema", "check", "--project", dir).want(t, 0)
	own := reference.Program("foldstream")
	own.Stock = false
	call(t.Context(), own, "schema", "check", "--project", dir).want(t, 1, `decides category "workflow"`)
}

func TestTopicsPlanAndApply(t *testing.T) {
	t.Parallel()
	for _, kafka := range testkit.Kafkas(t) {
		t.Run(kafka.Name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t), "-o", "json"}
			p := app.Program{Project: appendProject("")}
			tool := func(p app.Program, words ...string) result { return call(t.Context(), p, append(words, args...)...) }

			var plan topics.Plan
			decode(t, tool(p, "topics", "plan"), &plan)
			if len(plan.Changes) != 10 || plan.Changes[0].Kind != topics.KindCreate {
				t.Errorf("plan on an empty broker: got %+v, want 10 topics to create", plan.Changes)
			}
			var applied topics.Applied
			decode(t, tool(p, "topics", "apply"), &applied)
			if len(applied.Created) != 10 {
				t.Errorf("apply: got %+v, want 10 topics created", applied)
			}
			again := tool(p, "topics", "apply")
			again.want(t, 0, "all topics are as they should be")
			if !strings.Contains(again.stdout, `"created": []`) {
				t.Errorf("apply again: got %s, want empty lists", again.stdout)
			}

			shorter := app.Program{Project: appendProject(", retention: 30d")}
			tool(shorter, "topics", "apply").want(t, service.ExitConflict, "nothing was changed", "--execute")
			tool(shorter, "topics", "apply", "--execute").want(t, service.ExitUsage, "--yes")
			decode(t, tool(shorter, "topics", "apply", "--execute", "--yes"), &applied)
			if len(applied.Configured) != 1 || applied.Configured[0].Key != "retention.ms" {
				t.Errorf("apply --execute: got %+v, want retention.ms set", applied)
			}
			decode(t, tool(p, "topics", "apply"), &applied)
			if len(applied.Configured) != 1 {
				t.Errorf("a longer retention: got %+v, want it set without a word", applied)
			}
			tool(app.Program{Project: appendProject(", partitions: 5")}, "topics", "apply").want(t, service.ExitConflict, "partition")
		})
	}
}

func TestSchemaRegisterIsRepeatableAndRefusesWhatBreaks(t *testing.T) {
	t.Parallel()
	kafka := testkit.Kafkas(t)[0]
	args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t), "-o", "json"}
	p := app.Program{Name: "shop", Project: appendProject("")}
	call(t.Context(), p, append([]string{"topics", "apply"}, args...)...).want(t, 0)
	first := call(t.Context(), p, append([]string{"schema", "register"}, args...)...)
	first.want(t, 0)
	if again := call(t.Context(), p, append([]string{"schema", "register"}, args...)...); again.stdout != first.stdout {
		t.Errorf("again: got %s, want what was there: %s", again.stdout, first.stdout)
	}
	var listed []struct{ Type, Kind string }
	decode(t, call(t.Context(), p, append([]string{"schema", "list"}, args...)...), &listed)
	got := fmt.Sprint(listed)
	for _, want := range []string{"{foldstream.Append system}", "{foldstream.Reply system}", "{invoice.Cancelled event} {invoice.Issued event}]"} {
		if !strings.Contains(got, want) {
			t.Errorf("list: got %s, want %s in it", got, want)
		}
	}
	breaking := appendProject("")
	breaking["schemas/invoice/Issued.v2.avsc"] = &fstest.MapFile{Data: []byte(strings.Replace(issued, `"long"`, `"string"`, 1))}
	p.Project = breaking
	call(t.Context(), p, "schema", "check").want(t, service.ExitConflict, "schemas/invoice/Issued.v2.avsc: cannot read what version 1 wrote")
	call(t.Context(), p, append([]string{"schema", "register"}, args...)...).want(t, service.ExitConflict, "invoice.Issued")
}

func TestServicesStartOnlyOnWhatIsThere(t *testing.T) {
	t.Parallel()
	kafka := testkit.Kafkas(t)[0]
	args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t), "--http-addr", "127.0.0.1:0"}
	p := app.Program{Name: "shop", Project: appendProject("")}
	run := func(p app.Program, words ...string) result { return call(t.Context(), p, append(words, args...)...) }
	run(p, "ingest").want(t, service.ExitNotFound, ".invoice.events", "create them by `shop topics apply`")
	run(p, "topics", "apply").want(t, 0)
	run(p, "ingest").want(t, service.ExitNotFound, "schemas are not registered: ", "invoice.Issued v1", "register them by `shop schema register`")
	run(p, "schema", "register").want(t, 0)
	run(p, "projector").want(t, service.ExitUsage, "there is nothing to run")
	changed := appendProject("")
	changed["schemas/invoice/Issued.v1.avsc"] = &fstest.MapFile{Data: []byte(strings.Replace(issued, `"total"`, `"sum"`, 1))}
	run(app.Program{Project: changed}, "ingest").want(t, service.ExitConflict, "version 1 of invoice.Issued is registered with another text")
}

func TestAllServesUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	kafka, postgres := testkit.Kafkas(t)[0], testkit.Postgreses(t)[0]
	cfg := service.DefaultConfig()
	cfg.Kafka.Brokers, cfg.HTTP.Addr = kafka.Seeds(), "127.0.0.1:0"
	cfg.Postgres.DSN = service.Secret(postgres.NewDatabase(t))
	env, err := app.NewEnvironment(reference.Program("foldstream"), app.Settings{Namespace: testkit.Namespace(t), Config: cfg, Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	env.Project.ReplicationFactor = 1
	if err := env.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := env.Prepare(t.Context()); err != nil {
		t.Fatalf("prepare again: %v", err)
	}
	services, err := env.OpenServices(t.Context(), app.Which{Ingest: true, Projector: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(services.Names()); got != "[ingest projector]" {
		t.Errorf("services: got %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- services.Run(ctx, nil) }()
	awaitReady(t, services)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodPost, "/v1/commands/workflow/w", `{"type": "workflow.Nope", "data": {}}`, http.StatusBadRequest},
		{http.MethodGet, "/v1/streams/workflow/w/events", "", http.StatusNotFound},
		{http.MethodGet, "/openapi.json", "", http.StatusOK},
		{http.MethodGet, "/registry/subjects", "", http.StatusOK},
		{http.MethodGet, "/v1/nope", "", http.StatusNotFound},
	} {
		if got, text := ask(t, c.method, services.URL()+c.path, c.body, ""); got != c.status {
			t.Errorf("%s %s: got %d %s, want %d", c.method, c.path, got, text, c.status)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	services.Close()
}

func awaitReady(t *testing.T, services *app.Services) {
	t.Helper()
	testkit.Await(t, "all services are ready", time.Minute, func(context.Context) bool {
		status, _ := ask(t, http.MethodGet, services.URL()+"/readyz", "", "")
		return status == http.StatusOK
	})
}

// ask sends a request; status 0 means that there was no answer.
func ask(t *testing.T, method, url, body, token string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, ""
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer.StatusCode, string(all)
}

// A project without Go, and without Postgres, serves appends and reads from the log alone.
func TestIngestServesItsAPIWithoutPostgres(t *testing.T) {
	t.Parallel()
	kafka := testkit.Kafkas(t)[0]
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := service.DefaultConfig()
	cfg.Kafka.Brokers, cfg.HTTP.Addr, cfg.HTTP.TokenFile = kafka.Seeds(), "127.0.0.1:0", tokens
	args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t)}
	p := app.Program{Name: "shop", Project: appendProject("")}
	call(t.Context(), p, append([]string{"topics", "apply"}, args...)...).want(t, 0)
	call(t.Context(), p, append([]string{"schema", "register"}, args...)...).want(t, 0)
	env, err := app.NewEnvironment(p, app.Settings{Namespace: args[3], Config: cfg, Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	services, err := env.OpenServices(t.Context(), app.Which{Ingest: true, Projector: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(services.Names()); got != "[ingest]" {
		t.Errorf("services: got %s, want ingest alone", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- services.Run(ctx, nil) }()
	awaitReady(t, services)
	stream := services.URL() + "/v1/streams/invoice/i-1/events"
	const body = `{"events": [{"type": "invoice.Issued", "data": {"total": 7}}, {"type": "invoice.Cancelled", "data": {"total": 7}}]}`
	for _, c := range []struct {
		method, url, body, token string
		status                   int
		text                     string
	}{
		{http.MethodPost, stream, body, "", http.StatusUnauthorized, `"code":"unauthorized"`},
		{http.MethodGet, services.URL() + "/registry/subjects", "", "wrong", http.StatusUnauthorized, "401"},
		{http.MethodGet, services.URL() + "/registry/subjects", "", "open sesame", http.StatusOK, "invoice.Issued"},
		{http.MethodPost, stream, body, "open sesame", http.StatusCreated, `"lastVersion":2`},
		{http.MethodGet, stream, "", "open sesame", http.StatusOK, `"total":7`},
		{http.MethodGet, services.URL() + "/livez", "", "", http.StatusOK, "ok"},
	} {
		if got, text := ask(t, c.method, c.url, c.body, c.token); got != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s %s with token %q: got %d %s, want %d with %s", c.method, c.url, c.token, got, text, c.status, c.text)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
}

func TestEndpointsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"{": "unexpected EOF", "{}": "names no brokers"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, app.EndpointsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := app.ReadEndpoints(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestPrintKeepsNamesOrderAndTexts(t *testing.T) {
	t.Parallel()
	value := []struct {
		Name  string            `json:"name"`
		Count int               `json:"count"`
		Tags  map[string]string `json:"tags"`
		None  []string          `json:"none"`
	}{{"007", 3, map[string]string{"b": "true", "a": "x: y"}, []string{}}}
	for format, want := range map[app.Format]string{
		app.FormatJSON:  "[\n  {\n    \"name\": \"007\",\n    \"count\": 3,\n    \"tags\": {\n      \"a\": \"x: y\",\n      \"b\": \"true\"\n    },\n    \"none\": []\n  }\n]\n",
		app.FormatYAML:  "- name: \"007\"\n  count: 3\n  tags:\n    a: \"x: y\"\n    b: \"true\"\n  none: []\n",
		app.FormatTable: "NAME  COUNT\n007   3\n",
	} {
		var out bytes.Buffer
		if err := app.Print(&out, format, value, app.Table{Columns: []string{"name", "count"}, Rows: [][]string{{"007", "3"}}}); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}
}

func decode(t *testing.T, r result, into any) {
	t.Helper()
	r.want(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("stdout is no JSON: %v\n%s", err, r.stdout)
	}
}
