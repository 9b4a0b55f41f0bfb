package query_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

const namespace = "fs"

var t0 = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// thing has a column of every type.
type thing struct {
	Name   string            `db:"name"`
	Note   *string           `db:"note"`
	Small  int64             `db:"small,smallint"`
	Total  int64             `db:"total"`
	Rank   *int64            `db:"rank,integer"`
	Ratio  *float64          `db:"ratio"`
	Open   bool              `db:"open"`
	Tags   []string          `db:"tags"`
	Doc    map[string]string `db:"doc,jsonb"`
	At     time.Time         `db:"at"`
	EndAt  *time.Time        `db:"end_at"`
	Select string            `db:"select"` // a word of SQL
	Limit  int64             `db:"limit"`  // a name of a parameter
}

type happened struct{}

func things(version int) projection.View {
	return projection.Entity(projection.EntitySpec[thing]{
		Name: "things", Version: version, On: []codec.TypeDef{projection.On[happened]("thing.Happened", 1)},
		Fold: func(r thing, _ bool, _ projection.Event) (thing, projection.Change, error) {
			return r, projection.Set, nil
		},
	})
}

type mark struct {
	Text string `db:"text"`
}

func trail() projection.View {
	return projection.Append(projection.AppendSpec[mark]{
		Name: "trail", Version: 1, On: []codec.TypeDef{projection.On[happened]("thing.Happened", 1), projection.On[happened]("other.Happened", 1)},
		Rows: func(projection.Event) ([]mark, error) { return nil, nil },
	})
}

// world is an API on a database of its own, and a pool that can write there.
type world struct {
	t    testing.TB
	pool *pgxpool.Pool
	dsn  string
	api  *query.API
	http *httptest.Server
	cfg  query.Config
}

func allViews() []projection.View { return append(views.All(), things(1), trail()) }

func newWorld(t testing.TB, change ...func(*query.Config)) *world {
	t.Helper()
	return newWorldOn(t, testkit.Postgreses(t)[0], change...)
}

func newWorldOn(t testing.TB, server *testkit.Postgres, change ...func(*query.Config)) *world {
	t.Helper()
	w := &world{t: t, dsn: server.NewDatabase(t)}
	var err error
	if w.pool, err = pgxpool.New(t.Context(), w.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	if err := projector.Migrate(t.Context(), w.pool, namespace, allViews()); err != nil {
		t.Fatal(err)
	}
	w.cfg = query.Config{
		Namespace: namespace, Postgres: w.config(), Views: allViews(), Search: map[string]string{"things": "name"},
		Limits: query.Limits{CatalogueAge: 50 * time.Millisecond}, Registerer: prometheus.NewRegistry(),
	}
	for _, f := range change {
		f(&w.cfg)
	}
	w.serve()
	return w
}

func (w *world) config() *pgxpool.Config {
	w.t.Helper()
	cfg, err := pgxpool.ParseConfig(w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// serve runs the API, as a service would.
func (w *world) serve() {
	w.t.Helper()
	var err error
	if w.api, err = query.New(w.cfg); err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, p := range w.api.Patterns() {
		mux.Handle(p, w.api)
	}
	w.http = httptest.NewServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	api, server := w.api, w.http
	go func() { ended <- api.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run: %v", err)
		}
		server.Close()
		api.Close()
		api.Close() // twice is harmless
	})
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(context.Background(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// answer is what came.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (w *world) get(path string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path)
}

func (w *world) do(method, path string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(text)}
	if method != http.MethodHead {
		if err := json.Unmarshal(text, &a.json); err != nil {
			w.t.Fatalf("%s: the answer is no JSON object: %v: %s", path, err, text)
		}
	}
	return a
}

// ok wants 200.
func (w *world) ok(path string) answer {
	w.t.Helper()
	a := w.get(path)
	if a.status != http.StatusOK {
		w.t.Fatalf("%s: got %d: %s", path, a.status, a.body)
	}
	return a
}

// refused wants a problem of a status and a code that says what is wanted.
func (w *world) refused(path string, status int, code string, says ...string) answer {
	w.t.Helper()
	a := w.get(path)
	if a.status != status || a.json["code"] != code {
		w.t.Errorf("%s: got %d %v, want %d %s: %s", path, a.status, a.json["code"], status, code, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		w.t.Errorf("%s: got media type %q", path, got)
	}
	for _, text := range says {
		if !strings.Contains(a.body, text) {
			w.t.Errorf("%s: got %s, want it to say %q", path, a.body, text)
		}
	}
	return a
}

// column lists one member of each row of a page.
func (a answer) column(name string) string {
	var out []string
	rows, _ := a.json["rows"].([]any)
	for _, r := range rows {
		out = append(out, fmt.Sprint(r.(map[string]any)[name]))
	}
	return strings.Join(out, " ")
}

func (a answer) next() string {
	text, _ := a.json["next"].(string)
	return text
}

// addThing writes a row as a projector would.
func (w *world) addThing(id string, x thing) {
	w.t.Helper()
	if x.Tags == nil {
		x.Tags = []string{}
	}
	if x.Doc == nil {
		x.Doc = map[string]string{}
	}
	if x.At.IsZero() {
		x.At = t0
	}
	w.exec(`insert into fs_things_v1.rows (id, name, note, small, total, rank, ratio, open, tags, doc, at, end_at, "select", "limit", version, fs_present)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1, true)`,
		id, x.Name, x.Note, x.Small, x.Total, x.Rank, x.Ratio, x.Open, x.Tags, x.Doc, x.At, x.EndAt, x.Select, x.Limit)
}

func ptr[T any](v T) *T { return &v }
