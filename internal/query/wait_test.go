package query_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// applied moves a partition's offset row, as a projector does.
func (w *world) applied(consumer, category string, partition int, next int64) {
	w.t.Helper()
	w.exec(`insert into fs.offsets (consumer, topic, partition, epoch, next_offset) values ($1, $2, $3, 1, $4)
		on conflict (consumer, topic, partition) do update set next_offset = excluded.next_offset, updated_at = now()`,
		consumer, topics.Events(namespace, category), partition, next)
}

func (w *world) park(consumer, category, key string) {
	w.t.Helper()
	w.exec("insert into fs.parked (consumer, topic, partition, key, first_offset) values ($1, $2, 0, $3, 5)", consumer, topics.Events(namespace, category), []byte(key))
}

// metric is a counter or gauge of the API, all its labels added up.
func (w *world) metric(name string) float64 {
	w.t.Helper()
	all, err := w.cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// until waits for a condition that another goroutine brings about.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("did not come: %s", what)
		}
	}
}

func TestAReadWaitsForTheVersionOfAStream(t *testing.T) {
	for _, view := range []struct{ path, have, wait, moves string }{
		{"/v1/views/things/s", "entity", "thing/s@3", "update fs_things_v1.rows set version = 3 where id = 's'"},
		{"/v1/views/things", "entity, list", "thing/s@3", "update fs_things_v1.rows set version = 3 where id = 's'"},
		{"/v1/views/trail", "append", "other/s@3", "insert into fs_trail_v1.stream_versions values ('thing', 's', 2), ('other', 's', 3)"},
		{"/v1/views/node_metrics", "metric", "execution/a/b@c@3", "insert into fs_node_metrics_v1.stream_versions values ('execution', 'a/b@c', 4)"},
	} {
		t.Run(view.have, func(t *testing.T) {
			w := newWorld(t)
			w.addThing("s", thing{})
			got := make(chan answer, 1)
			go func() { got <- w.get(view.path + "?wait=" + view.wait + "&wait_ms=20000") }()
			w.until("somebody waits", func() bool { return w.metric("foldstream_query_polls_total") >= 2 })
			select {
			case a := <-got:
				t.Fatalf("answered before the version came: %s", a.body)
			default:
			}
			w.exec(view.moves)
			if a := <-got; a.status != http.StatusOK {
				t.Errorf("got %d %s", a.status, a.body)
			}
			w.ok(view.path + "?wait_ms=0&wait=" + view.wait)
			w.until("the poller rests", func() bool { return w.metric("foldstream_query_waiting") == 0 })
		})
	}
}

func TestADeletedRowStillHasItsVersion(t *testing.T) {
	w := newWorld(t)
	w.addThing("s", thing{})
	w.exec("update fs_things_v1.rows set version = 4, fs_present = false")
	w.refused("/v1/views/things/s?wait=thing/s@4", http.StatusNotFound, "no-row")
}

func TestAReadWaitsForAnOffset(t *testing.T) {
	w := newWorld(t)
	w.applied("view.things.v1", "thing", 3, 100)
	w.applied("view.trail.v1", "other", 3, 100)
	w.applied("view.things.v2", "thing", 3, 500) // of another version
	w.ok("/v1/views/things?wait=3@99")
	w.ok("/v1/views/things?wait=thing:3@99")
	w.ok("/v1/views/trail?wait=other:3@99")
	got := make(chan answer, 1)
	go func() { got <- w.get("/v1/views/things?wait=3@100&wait_ms=20000") }()
	w.until("somebody waits", func() bool { return w.metric("foldstream_query_waiting") == 1 })
	w.applied("view.things.v1", "thing", 3, 101)
	if a := <-got; a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
	a := w.refused("/v1/views/things?wait=3@200&wait_ms=10", http.StatusServiceUnavailable, "stale", `"wanted":200`, `"nextOffset":101`, `"lag":100`, `"seconds":`, `"partition":3`)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.refused("/v1/views/things?wait=9@5&wait_ms=10", http.StatusServiceUnavailable, "stale", `"wanted":5`, `"lag":6`)
}

func TestAWaitThatTimesOutSaysHowStale(t *testing.T) {
	w := newWorld(t)
	w.addThing("s", thing{})
	w.refused("/v1/views/things/s?wait=thing/s@7&wait_ms=20", http.StatusServiceUnavailable, "stale", `"version":1`, `"wanted":7`, `"lag":6`, `"stream":"s"`, `"viewVersion":1`)
	partition := int(topics.Partition([]byte("s"), 4))
	w.applied("view.things.v1", "thing", 3, 1)
	w.applied("view.things.v1", "thing", partition, 77)
	w.refused("/v1/views/things/s?wait=thing/s@7&wait_ms=0", http.StatusServiceUnavailable, "stale", fmt.Sprintf(`"partition":%d,"nextOffset":77`, partition))
	w.refused("/v1/views/things/s?wait=thing/never@1&wait_ms=0", http.StatusServiceUnavailable, "stale", `"version":0`, `"lag":1`)
}

func TestAParkedStreamIsAnsweredAtOnce(t *testing.T) {
	w := newWorld(t)
	w.addThing("s", thing{})
	w.park("view.things.v1", "thing", "s")
	w.park("view.things.v2", "thing", "other")
	w.refused("/v1/views/things/s?wait=thing/s@2&wait_ms=25000", http.StatusConflict, "parked", "dead letter", `"version":1`)
	w.ok("/v1/views/things/s?wait=thing/s@1") // before it was parked
	w.refused("/v1/views/things?wait=thing/other@2&wait_ms=20", http.StatusServiceUnavailable, "stale")
	w.park("view.trail.v1", "thing", "s")
	w.refused("/v1/views/trail?wait=thing/s@2&wait_ms=25000", http.StatusConflict, "parked")
	w.refused("/v1/views/trail?wait=other/s@2&wait_ms=20", http.StatusServiceUnavailable, "stale")
}

func TestWaitFaults(t *testing.T) {
	w := newWorld(t)
	for wait, says := range map[string]string{
		"x":                            "has no @",
		"":                             "has no @",
		"thing/s@":                     "no whole number",
		"thing/s@-1":                   "no whole number",
		"thing/s@0":                    "count from 1",
		"thing/@1":                     "no aggregate id",
		"nothing/s@1":                  "not made of events",
		"other:1@1":                    "not made of events",
		"x@1":                          "no partition",
		"-1@1":                         "no partition",
		"thing:2147483648@1":           "no partition",
		"thing/s@99999999999999999999": "no whole number",
	} {
		w.refused("/v1/views/things?wait="+wait, http.StatusBadRequest, "parameter", "query.wait", says)
	}
	w.refused("/v1/views/trail?wait=1@1", http.StatusBadRequest, "parameter", "category:partition@offset")
	w.refused("/v1/views/things?wait=thing/s@1&wait_ms=25001", http.StatusBadRequest, "parameter", "0 to 25000")
	if got := w.metric("foldstream_query_polls_total"); got != 0 {
		t.Errorf("looked %v times for what cannot come", got)
	}
}

func TestManyWhoWaitShareThePolls(t *testing.T) {
	const many = 200
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range many {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if a := w.get(fmt.Sprintf("/v1/views/things?limit=1&wait=thing/s%d@1&wait_ms=20000", i)); a.status != http.StatusOK {
				t.Errorf("got %d %s", a.status, a.body)
			}
		}()
	}
	w.until("all wait", func() bool { return w.metric("foldstream_query_waiting") == many })
	before := w.metric("foldstream_query_polls_total")
	w.exec(`insert into fs_things_v1.rows (id, name, small, total, open, tags, doc, at, "select", "limit", version, fs_present)
		select 's' || i, '', 0, 0, false, '{}', '{}', now(), '', 0, 1, true from generate_series(0, 199) i`)
	wg.Wait()
	if got := w.metric("foldstream_query_polls_total") - before; got > many/4 {
		t.Errorf("got %v polls for %d who wait, want few", got, many)
	}
	if n := testutil.CollectAndCount(w.cfg.Registerer.(*prometheus.Registry), "foldstream_query_waits_total"); n != 1 {
		t.Errorf("got %d results of waits, want one: came", n)
	}
}

func TestWaitsAreLimitedAndEndWithTheService(t *testing.T) {
	w := newWorld(t, func(c *query.Config) { c.Limits.WaitersMax = 1 })
	got := make(chan answer, 1)
	go func() { got <- w.get("/v1/views/things?wait=thing/s@1&wait_ms=25000") }()
	w.until("somebody waits", func() bool { return w.metric("foldstream_query_waiting") == 1 })
	a := w.refused("/v1/views/things?wait=thing/s@1", http.StatusTooManyRequests, "overloaded")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.api.Drain()
	w.api.Drain()
	if a := <-got; a.status != http.StatusServiceUnavailable || a.json["code"] != "unavailable" {
		t.Errorf("a wait at the end of the service: got %d %s", a.status, a.body)
	}
	w.ok("/v1/views/things") // others go on
}

func TestAWaiterWhoLeavesTakesThePollerAlong(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.http.URL+"/v1/views/things?wait=thing/s@1&wait_ms=25000", nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		left <- err
	}()
	w.until("somebody waits", func() bool { return w.metric("foldstream_query_waiting") == 1 })
	cancel()
	if err := <-left; err == nil {
		t.Error("the request that was given up was answered")
	}
	w.until("nobody waits", func() bool { return w.metric("foldstream_query_waiting") == 0 })
}
