package query_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5/pgxpool"
)

var update = flag.Bool("update", false, "write docs/query-openapi.json")

const documentFile = "../../docs/query-openapi.json"

func referenceWorld(t testing.TB) *world {
	t.Helper()
	return newWorld(t, func(c *query.Config) { c.Definitions = reference.Answers() })
}

func (w *world) addExecution(id, workflow, status string, started time.Time, ms any) {
	w.t.Helper()
	w.exec(`insert into fs_execution_history_v1.rows (execution_id, workflow_id, status, started_at, ended_at, duration_ms, nodes_executed, nodes_failed, version, fs_present)
		values ($1, $2, $3, $4, case when $5::bigint is null then null else $4::timestamptz + $5::bigint * interval '1 ms' end, $5, 3, 1, 4, true)`, id, workflow, status, started, ms)
}

func TestTheDocumentInTheRepositoryIsTheOneServed(t *testing.T) {
	env, err := app.NewEnvironment(reference.Program("query"), app.Settings{Config: service.DefaultConfig(), Logs: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := pgxpool.ParseConfig("host=localhost")
	if err != nil {
		t.Fatal(err)
	}
	api, err := query.New(query.Config{Namespace: "fs", Postgres: cfg, Views: env.Program.Views, Definitions: reference.Answers()})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	w := &recorded{header: http.Header{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	api.ServeHTTP(w, req)
	if *update {
		if err := os.WriteFile(documentFile, w.body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(documentFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.body.Bytes(), want) {
		t.Errorf("the document served is not %s: write it again by -update", documentFile)
	}
	for _, text := range []string{`"openapi": "3.1.0"`, `"/v1/views/{view}/{key}"`, `"/v1/executions/{id}"`, `"/v1/statistics/nodes"`, `"/v1/correlations/{id}"`, `"success_rate"`} {
		if !strings.Contains(string(want), text) {
			t.Errorf("the document has no %s", text)
		}
	}
}

// recorded keeps an answer.
type recorded struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) WriteHeader(int)             {}
func (r *recorded) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestResourcesAreViewsUnderTheirOwnNames(t *testing.T) {
	w := referenceWorld(t)
	w.addExecution("e1", "w1", "running", t0, nil)
	w.addExecution("e2", "w1", "failed", t0.Add(time.Minute), 250)
	w.exec(`insert into fs_workflow_list_v1.rows (workflow_id, name, status, tags, nodes, connections, created_at, updated_at, version, fs_present)
		values ('w1', 'Bill', 'active', '{a}', '[{"id": "n"}]', '[]', now(), now(), 1, true)`)
	if got := w.ok("/v1/executions?status=failed&started_at.gte=2026-03-01T09:00:30Z&sort=-started_at").column("execution_id"); got != "e2" {
		t.Errorf("executions: got %q, want e2", got)
	}
	if got := w.ok("/v1/executions/e2"); got.json["duration_ms"] != 250.0 || got.json["workflow_id"] != "w1" {
		t.Errorf("execution: got %s", got.body)
	}
	if got := w.ok("/v1/workflows?tags.has=a"); got.column("name") != "Bill" || !strings.Contains(got.body, `"nodes":[{"id": "n"}]`) {
		t.Errorf("workflows: got %s", got.body)
	}
	w.ok("/v1/workflows/w1?wait=workflow/w1@1")
	w.refused("/v1/workflows/none", http.StatusNotFound, "no-row")
	w.refused("/v1/executions?wait=workflow/w1@1", http.StatusBadRequest, "parameter")
}

func TestStatisticsOfExecutions(t *testing.T) {
	w := referenceWorld(t)
	for i, status := range []string{"completed", "completed", "completed", "failed", "cancelled", "running"} {
		var ms any = int64(100 * (i + 1))
		if status == "running" {
			ms = nil
		}
		w.addExecution(fmt.Sprint("e", i), "w1", status, t0.Add(time.Duration(i)*time.Minute), ms)
	}
	w.addExecution("late", "w2", "running", t0.Add(25*time.Hour), nil)
	span := "from=2026-03-01T09:30:00Z&to=2026-03-03T00:00:00Z"
	got := w.ok("/v1/statistics/executions?" + span)
	want := `{"rows":[` +
		`{"period":"2026-03-01T09:00:00Z","started":6,"running":1,"completed":3,"failed":1,"cancelled":1,"success_rate":0.75,"duration_mean_ms":300,"duration_p50_ms":300,"duration_p95_ms":480,"duration_p99_ms":496},` +
		`{"period":"2026-03-02T10:00:00Z","started":1,"running":1,"completed":0,"failed":0,"cancelled":0,"success_rate":null,"duration_mean_ms":null,"duration_p50_ms":null,"duration_p95_ms":null,"duration_p99_ms":null}]}` + "\n"
	if got.body != want {
		t.Errorf("got  %s want %s", got.body, want)
	}
	if got := w.ok("/v1/statistics/executions?per=day&" + span + "&workflow_id=w2"); got.column("period") != "2026-03-02T00:00:00Z" || got.column("started") != "1" {
		t.Errorf("per day, filtered: got %s", got.body)
	}
	if got := w.ok("/v1/statistics/executions?to=2026-03-01T09:02:00Z"); got.column("started") != "2" {
		t.Errorf("to is excluded, and from a day before: got %s", got.body)
	}
	if got := w.ok("/v1/statistics/executions?to=2020-03-01T09:02:00Z"); got.body != `{"rows":[]}`+"\n" {
		t.Errorf("nothing: got %s", got.body)
	}
	w.ok("/v1/statistics/executions?wait=execution/e0@4")
	for query, says := range map[string]string{
		"per=week": "hour or day", "from=x": "RFC 3339", "from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z": "not before",
		"from=2020-03-02T00:00:00Z&to=2026-03-01T00:00:00Z": "1000 periods", "sort=status": "no such column", "status.x=1": "no operator", "wait=x": "@",
	} {
		w.refused("/v1/statistics/executions?"+query, http.StatusBadRequest, "parameter", says)
	}
}

func TestStatisticsOfNodes(t *testing.T) {
	w := referenceWorld(t)
	w.exec("insert into fs_node_metrics_v1.rows values ('w1', 'a', 4, 1, 100, now(), now()), ('w1', 'b', 0, 0, 0, now(), now()), ('w2', 'a', 1, 1, 7, now(), now())")
	got := w.ok("/v1/statistics/nodes?workflow_id=w1")
	want := `{"rows":[{"workflow_id":"w1","node":"a","executions":4,"failures":1,"total_ms":100,"error_rate":0.25,"duration_mean_ms":25},` +
		`{"workflow_id":"w1","node":"b","executions":0,"failures":0,"total_ms":0,"error_rate":null,"duration_mean_ms":null}]}` + "\n"
	if got.body != want {
		t.Errorf("got  %s want %s", got.body, want)
	}
	w.refused("/v1/statistics/nodes?per=hour", http.StatusBadRequest, "parameter", "query.per")
	w.exec("insert into fs_node_metrics_v1.rows select 'w3', 'n' || i, 1, 0, 1, now(), now() from generate_series(1, 1001) i")
	if got := w.ok("/v1/statistics/nodes?workflow_id=w3"); got.json["truncated"] != true {
		t.Error("1,001 groups are not said to be truncated")
	}
	w.exec("insert into fs_node_metrics_v1.rows values ('w4', 'a', 9223372036854775807, 0, 0, now(), now())")
	w.ok("/v1/statistics/nodes?workflow_id=w4")
}

// addEvent writes a row of the index, as a projector does.
func (w *world) addEvent(correlation, stream string, version int, id, causation, command string, at time.Time) {
	w.t.Helper()
	w.exec(`insert into fs_events_v1.rows (category, stream, version, recorded_at, id, type, time, correlation_id, causation_id, user_id, command_id, partition, "offset", header_names, header_values, value)
		values ('thing', $1, $2, $3, $4, 'thing.Happened', $3, $5, $6, 'u', $7, 1, $2, '{}', '{}', 'x')`, stream, version, at, id, correlation, causation, command)
}

func TestACorrelationIsShownInOrderAndAsATree(t *testing.T) {
	w := referenceWorld(t)
	w.refused("/v1/correlations/c1", http.StatusNotFound, "unknown-view")
	if err := projector.MigrateSystemViews(t.Context(), w.pool, namespace); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	w.addEvent("c1", "s", 2, "e2", "cmd1", "cmd1", now.Add(time.Second))
	w.addEvent("c1", "s", 1, "e1", "cmd1", "cmd1", now)
	w.addEvent("c1", "t", 1, "e3", "e1", "e1", now.Add(2*time.Second)) // its request has the id of an event
	w.addEvent("c1", "u", 1, "e4", "e3", "e3", now.Add(3*time.Second))
	w.addEvent("c1", "v", 1, "e5", "e5", "e5", now.Add(4*time.Second)) // its own cause
	w.addEvent("c1", "w", 1, "e6", "e7", "e7", now.Add(5*time.Second)) // a circle
	w.addEvent("c1", "w", 2, "e7", "e6", "e6", now.Add(6*time.Second))
	w.addEvent("c2", "s", 3, "e8", "cmd2", "cmd2", now)
	w.until("the view is known", func() bool { return w.get("/v1/correlations/c1").status == http.StatusOK })
	got := w.ok("/v1/correlations/c1")
	var ids []string
	for _, e := range got.json["events"].([]any) {
		ids = append(ids, fmt.Sprint(e.(map[string]any)["id"]))
	}
	if text := strings.Join(ids, " "); text != "e1 e2 e3 e4 e5 e6 e7" {
		t.Errorf("events: got %s", text)
	}
	_, tree, _ := strings.Cut(got.body, `"tree":`)
	want := `[{"kind":"request","id":"cmd1","effects":[{"kind":"event","id":"e1","event":0,"effects":[{"kind":"event","id":"e3","event":2,"effects":[{"kind":"event","id":"e4","event":3}]}]},{"kind":"event","id":"e2","event":1}]},` +
		`{"kind":"request","id":"e5","effects":[{"kind":"event","id":"e5","event":4}]},` +
		`{"kind":"event","id":"e6","event":5,"effects":[{"kind":"event","id":"e7","event":6}]}]}` + "\n"
	if tree != want {
		t.Errorf("tree:\n got  %s want %s", tree, want)
	}
	if got := w.ok("/v1/correlations/c1?limit=2"); got.json["truncated"] != true || len(got.json["events"].([]any)) != 2 {
		t.Errorf("limited: got %s", got.body)
	}
	w.refused("/v1/correlations/none", http.StatusNotFound, "no-events")
	w.refused("/v1/correlations/a%00", http.StatusBadRequest, "parameter", "NUL")
	w.refused("/v1/correlations/c1?limit=1001", http.StatusBadRequest, "parameter", "1 to 1000")
	w.refused("/v1/correlations/c1?x=1", http.StatusBadRequest, "parameter", "query.x")
	if got := w.ok("/v1/views/events?stream=s&sort=version"); got.column("value") != "eA== eA== eA==" || got.column("header_values") != "[] [] []" {
		t.Errorf("the index as a view: got %s", got.body)
	}
	w.refused("/v1/views/snapshots?wait=thing/s@1", http.StatusBadRequest, "parameter", "does not tell")
}

func TestDeepCausesDoNotNestWithoutEnd(t *testing.T) {
	w := referenceWorld(t)
	if err := projector.MigrateSystemViews(t.Context(), w.pool, namespace); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	w.addEvent("c", "s", 1, "e1", "cmd", "cmd", now)
	w.exec(`insert into fs_events_v1.rows (category, stream, version, recorded_at, id, type, time, correlation_id, causation_id, user_id, command_id, partition, "offset", header_names, header_values, value)
		select 'thing', 's', i, $1, 'e' || i, 'thing.Happened', $1, 'c', 'e' || (i - 1), '', '', 1, i, '{}', '{}', '' from generate_series(2, 300) i`, now)
	w.until("the view is known", func() bool { return w.get("/v1/correlations/c").status == http.StatusOK })
	got := w.ok("/v1/correlations/c")
	if n := strings.Count(got.body, `"kind":"event"`); n != 300 {
		t.Errorf("got %d events in the tree, want each of 300 once", n)
	}
	if roots := len(got.json["tree"].([]any)); roots < 4 || roots > 6 {
		t.Errorf("got %d roots, want one for each 64 levels", roots)
	}
}

func TestDefinitionsThatFitOtherViewsAreKept(t *testing.T) {
	all := reference.Answers()
	for name, c := range map[string]struct {
		views                 []projection.View
		resources, statistics int
	}{
		"the program's own": {views.All(), 2, 2},
		"another project's": {[]projection.View{things(1)}, 0, 0},
		"none":              {nil, 0, 0},
	} {
		got := all.Fitting(c.views)
		if len(got.Resources) != c.resources || len(got.Statistics) != c.statistics {
			t.Errorf("%s: got %d and %d, want %d resources and %d statistics", name, len(got.Resources), len(got.Statistics), c.resources, c.statistics)
		}
	}
}

func TestDefinitionsAreChecked(t *testing.T) {
	cfg, err := pgxpool.ParseConfig("host=localhost")
	if err != nil {
		t.Fatal(err)
	}
	sums := []query.Measure{{Name: "n", Aggregate: query.Count}}
	for name, c := range map[string]struct {
		definitions query.Definitions
		want        string
	}{
		"path":           {query.Definitions{Resources: []query.Resource{{Path: "views", Name: "X", View: "things"}}}, "none of views"},
		"name":           {query.Definitions{Resources: []query.Resource{{Path: "x", Name: "Problem", View: "things"}}}, "this API's own"},
		"no view":        {query.Definitions{Resources: []query.Resource{{Path: "x", Name: "X", View: "nothing"}}}, "no view"},
		"key":            {query.Definitions{Resources: []query.Resource{{Path: "x", Name: "X", View: "node_metrics"}}}, "2 columns"},
		"twice":          {query.Definitions{Resources: []query.Resource{{Path: "x", Name: "X", View: "things"}, {Path: "x", Name: "Y", View: "things"}}}, "stands twice"},
		"time":           {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "name", Measures: sums}}}, "no timestamptz"},
		"by":             {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", By: []string{"doc"}, Measures: sums}}}, "grouped by"},
		"both":           {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", By: []string{"name"}, Time: "at", Measures: sums}}}, "either Time or By"},
		"measure name":   {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "at", Measures: []query.Measure{{Name: "a b", Aggregate: query.Count}}}}}, "a name of"},
		"measure type":   {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "at", Measures: []query.Measure{{Name: "a", Aggregate: query.Sum, Column: "name"}}}}}, "no whole number"},
		"measure column": {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "at", Measures: []query.Measure{{Name: "a", Aggregate: query.Percentile, Column: "total", Fraction: 2}}}}}, "0 and 1"},
		"ratio":          {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "at", Measures: []query.Measure{{Name: "a", Aggregate: query.Ratio, Of: []string{"b"}, Over: []string{"c"}}}}}}, "no count or sum before it"},
		"aggregate":      {query.Definitions{Statistics: []query.Statistic{{Path: "x", Name: "X", View: "things", Time: "at", Measures: []query.Measure{{Name: "a", Aggregate: "mode"}}}}}, "no aggregate"},
	} {
		_, err := query.New(query.Config{Namespace: "fs", Postgres: cfg, Views: allViews(), Definitions: c.definitions})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, c.want)
		}
	}
	_, err = query.New(query.Config{Namespace: "F", Views: []projection.View{{}}, Limits: query.Limits{PoolMax: -1, SlowQuery: -1}})
	for _, want := range []string{"PoolMax", "SlowQuery", "Postgres is required", "namespace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("configuration: got %v, want it to name %s", err, want)
		}
	}
}
