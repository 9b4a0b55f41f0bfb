package query_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/jackc/pgx/v5"
)

// injections are texts that would be SQL if a name or a value were ever part of a statement.
var injections = []string{
	`'; drop table fs.views; --`, `" or 1=1; --`, `a" = '' or "b`, `$1`, `$2::text`, `\'; select pg_sleep(9); --`, `1); delete from fs.offsets; --`,
	`x' || (select version()) || '`, `%27%20or%201=1`, `/*`, `id::text`, `pg_sleep(9)`, `(select 1)`, "a\nb", "\u2019", "fs_present", `"id"`,
}

func TestNothingThatAClientSendsIsPartOfAStatement(t *testing.T) {
	w := newWorld(t, func(c *query.Config) { c.Definitions = reference.Answers() })
	w.fill()
	cursor := w.ok("/v1/views/things?limit=1").next()
	for _, text := range injections {
		e := url.QueryEscape(text)
		for _, path := range []string{
			"/v1/views/" + url.PathEscape(text), "/v1/views/things/" + url.PathEscape(text), "/v1/workflows/" + url.PathEscape(text),
			"/v1/correlations/" + url.PathEscape(text),
			"/v1/views/things?" + e + "=1", "/v1/views/things?name." + e + "=1", "/v1/views/things?name=" + e, "/v1/views/things?name.like=" + e,
			"/v1/views/things?name.prefix=" + e, "/v1/views/things?name.in=" + e + ",b", "/v1/views/things?tags.has=" + e, "/v1/views/things?total=" + e,
			"/v1/views/things?at.gte=" + e, "/v1/views/things?ratio=" + e, "/v1/views/things?open=" + e, "/v1/views/things?note.isnull=" + e,
			"/v1/views/things?sort=" + e, "/v1/views/things?sort=-" + e, "/v1/views/things?fields=" + e, "/v1/views/things?limit=" + e, "/v1/views/things?q=" + e,
			"/v1/views/things?cursor=" + e, "/v1/views/things?cursor=" + cursor + e, "/v1/views/things?wait_ms=0&wait=thing/" + e + "@1", "/v1/views/things?wait=" + e,
			"/v1/statistics/executions?per=" + e, "/v1/statistics/executions?from=" + e, "/v1/statistics/executions?status=" + e, "/v1/statistics/nodes?" + e + "=1",
		} {
			a := w.get(path)
			if a.status >= 500 && a.json["code"] != "stale" {
				t.Errorf("%s: got %d %s", path, a.status, a.body)
			}
		}
	}
	for text := range map[string]bool{"alpha' or '1'='1": true, "%": true, "_____": true} {
		if got := w.ok("/v1/views/things?name=" + url.QueryEscape(text)).column("id"); got != "" {
			t.Errorf("name=%s: got rows %s, want none", text, got)
		}
	}
	if got := w.ok("/v1/views/things").column("id"); got != "a b c d e" {
		t.Errorf("rows afterwards: got %q", got)
	}
}

func TestConnectionsCanOnlyRead(t *testing.T) {
	w := newWorld(t)
	w.exec(`create function scribble() returns text language plpgsql as $$ begin insert into fs.views values ('x', 1, '{}', false); return 'done'; end $$`)
	w.exec(`alter table fs_things_v1.rows rename to real_rows`)
	w.exec(`create view fs_things_v1.rows as select id, scribble() as name, note, small, total, rank, ratio, open, tags, doc, at, end_at, "select", "limit", version, fs_present from fs_things_v1.real_rows`)
	w.exec(`insert into fs_things_v1.real_rows (id, name, small, total, open, tags, doc, at, "select", "limit", version, fs_present) values ('a', '', 1, 1, true, '{}', '{}', now(), '', 0, 1, true)`)
	w.refused("/v1/views/things/a", http.StatusServiceUnavailable, "unavailable")
	var n int
	if err := w.pool.QueryRow(t.Context(), "select count(*) from fs.views where name = 'x'").Scan(&n); err != nil || n != 0 {
		t.Errorf("a read wrote %d rows, %v", n, err)
	}
}

func TestARoleOfItsOwnIsEnoughToRead(t *testing.T) {
	w := newWorld(t)
	role := "reader_" + strings.ReplaceAll(w.config().ConnConfig.Database, "t_", "")
	w.exec("create role " + pgx.Identifier{role}.Sanitize())
	t.Cleanup(func() {
		w.exec("drop owned by " + pgx.Identifier{role}.Sanitize())
		w.exec("drop role " + pgx.Identifier{role}.Sanitize())
	})
	w.fill()
	w.cfg.Role, w.cfg.Registerer = role, nil
	w.serve()
	w.refused("/v1/views/things/a", http.StatusServiceUnavailable, "unavailable")
	if err := w.api.Ready(); err == nil {
		t.Error("ready without the right to read")
	}
	w.exec("grant usage on schema fs to " + role)
	w.exec("grant select on fs.views, fs.offsets, fs.parked to " + role)
	w.exec("grant usage on schema fs_things_v1 to " + role)
	w.exec("grant select on all tables in schema fs_things_v1 to " + role)
	w.until("the list is read", func() bool { return w.api.Ready() == nil })
	w.ok("/v1/views/things/a?wait=thing/a@1")
	w.refused("/v1/views/trail", http.StatusServiceUnavailable, "unavailable")
}

// slowView makes reads of things take a while.
func (w *world) slowView(seconds float64) {
	w.exec(`alter table fs_things_v1.rows rename to real_rows`)
	w.exec(fmt.Sprintf(`create view fs_things_v1.rows as select r.* from fs_things_v1.real_rows r, lateral (select pg_sleep(%f) where r.id is not null) s`, seconds))
}

func TestAStatementThatTakesTooLongIsCutAndLoggedWithoutItsValues(t *testing.T) {
	var log syncBuffer
	w := newWorld(t, func(c *query.Config) {
		c.Limits.StatementTimeout, c.Limits.SlowQuery = 300*time.Millisecond, 100*time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	w.fill()
	w.slowView(5)
	w.refused("/v1/views/things?id=a&name.ne=confidential", http.StatusServiceUnavailable, "slow", "300ms", "index")
	w.refused("/v1/views/things/a", http.StatusServiceUnavailable, "slow")
	text := log.String()
	if !strings.Contains(text, "a statement was slow") || !strings.Contains(text, "list-rows") || !strings.Contains(text, "$1") {
		t.Errorf("the log does not tell: %s", text)
	}
	if strings.Contains(text, "confidential") {
		t.Errorf("the log has a value: %s", text)
	}
	if got := w.metric("foldstream_query_slow_statements_total"); got != 2 {
		t.Errorf("slow statements: got %v, want 2", got)
	}
	w.ok("/v1/views")
}

// syncBuffer is a log for many goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestTheQueueForConnectionsIsLimited(t *testing.T) {
	w := newWorld(t, func(c *query.Config) {
		c.Limits.PoolMax, c.Limits.QueueMax, c.Limits.QueueTimeout = 1, 1, 150*time.Millisecond
	})
	w.addThing("a", thing{})
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "lock table fs_things_v1.rows in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 3)
	read := func() { got <- w.get("/v1/views/things/a") }
	go read()
	w.until("one runs", func() bool { return w.metric("foldstream_query_connections_busy") == 1 })
	for range 2 {
		a := w.get("/v1/views/things/a") // one after the other: each waits in vain
		if a.status != http.StatusTooManyRequests || a.json["code"] != "overloaded" || a.header.Get("Retry-After") != "1" {
			t.Errorf("got %d %s, want 429", a.status, a.body)
		}
	}
	began := time.Now()
	for range 2 {
		go read()
	}
	if a := <-got; a.status != http.StatusTooManyRequests || time.Since(began) > 10*time.Second {
		t.Errorf("beyond the queue: got %d after %s", a.status, time.Since(began))
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := 0
	for range 2 {
		if a := <-got; a.status == http.StatusOK {
			served++
		}
	}
	if served == 0 {
		t.Error("the one that had the connection was not served")
	}
}

func TestATokenIsAskedForWhereOneIsConfigured(t *testing.T) {
	w := newWorld(t, func(c *query.Config) {
		c.Authorized = func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer sesame" }
	})
	if a := w.refused("/v1/views", http.StatusUnauthorized, "unauthorized"); a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Error("no WWW-Authenticate")
	}
	w.ok("/openapi.json")
}

func TestASwitchOfTheLiveVersionLosesNoRead(t *testing.T) {
	w := newWorld(t)
	w.addThing("a", thing{Name: "one"})
	if err := projector.Migrate(t.Context(), w.pool, namespace, append(allViews(), things(2))); err != nil {
		t.Fatal(err)
	}
	w.exec("insert into fs_things_v2.rows select * from fs_things_v1.rows")
	w.exec("alter table fs_things_v2.rows drop column note")
	w.exec("update fs_things_v2.rows set name = 'two'")
	w.exec(`update fs.views set definition = jsonb_set(definition::jsonb, '{Columns}', (select jsonb_agg(c) from jsonb_array_elements(definition::jsonb->'Columns') c where c->>'Name' <> 'note'))::text
		where name = 'things' and version = 2`)
	stop, failed := make(chan struct{}), make(chan string, 1)
	var reads sync.WaitGroup
	for _, path := range []string{"/v1/views/things/a", "/v1/views/things?name.ne=x", "/v1/views/things/a?fields=name"} {
		reads.Add(1)
		go func() {
			defer reads.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := w.get(path); a.status != http.StatusOK {
					select {
					case failed <- a.body:
					default:
					}
				}
			}
		}()
	}
	for range 5 {
		w.switchThings(2)
		w.exec(`alter schema fs_things_v1 rename to dropped`)
		w.until("version 2 is read", func() bool { return strings.Contains(w.get("/v1/views/things/a").body, "two") })
		w.exec(`alter schema dropped rename to fs_things_v1`)
		w.switchThings(1)
		w.until("version 1 is read", func() bool { return strings.Contains(w.get("/v1/views/things/a").body, "one") })
	}
	close(stop)
	reads.Wait()
	select {
	case text := <-failed:
		t.Errorf("a read failed: %s", text)
	default:
	}
}

// switchThings makes a version the live one, in one transaction.
func (w *world) switchThings(version int) {
	w.t.Helper()
	err := pgx.BeginFunc(context.Background(), w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(context.Background(), "update fs.views set live = false where name = 'things'"); err != nil {
			return err
		}
		_, err := tx.Exec(context.Background(), "update fs.views set live = true where name = 'things' and version = $1", version)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWithoutPostgresNothingIsReady(t *testing.T) {
	w := newWorld(t)
	w.ok("/v1/views")
	if err := w.api.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	other := *w
	other.cfg.Registerer = nil
	other.cfg.Postgres = w.config()
	other.cfg.Postgres.ConnConfig.Port = 1
	other.serve()
	other.refused("/v1/views", http.StatusServiceUnavailable, "unavailable")
	other.refused("/v1/views/things/a", http.StatusServiceUnavailable, "unavailable")
	if err := other.api.Ready(); err == nil {
		t.Error("ready without a Postgres")
	}
	empty := *w
	empty.cfg.Registerer, empty.cfg.Namespace = nil, "other"
	empty.serve()
	empty.refused("/v1/views", http.StatusServiceUnavailable, "unavailable")
	if err := empty.api.Ready(); err == nil || !strings.Contains(err.Error(), "views") {
		t.Errorf("before the tables are made: got %v", err)
	}
}
