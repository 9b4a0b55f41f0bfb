package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
)

func TestAnyOfTwoInstancesAnswersForBoth(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 4)
		a, b := s.start(), s.start()
		s.serving(a, b)
		for p := range int32(4) {
			stream := s.streamOn(p, 2)
			for n, i := range []*instance{a, b} {
				got := i.appendTo("note", stream, noted, "Idempotency-Key", "same")
				want := []string{"201 accepted 1", "200 duplicate 1"}[n]
				equal(t, "append", words(got.status, got.string("outcome"), got.number("lastVersion")), want)
				got = i.command(stream, `{"type":"tally.Add","data":{"amount":-1}}`)
				equal(t, "rejected", words(got.status, got.code()), "422 negative")
				got = i.appendTo("note", stream, `{"expectedVersion":9,"events":[{"type":"note.Noted","data":{"text":"x"}}]}`)
				equal(t, "conflict", words(got.status, got.number("actualVersion")), "409 1")
				got = i.appendTo("note", stream, `{"events":[{"type":"note.Noted","data":{"text":"x"}}]}`, "Idempotency-Key", "same")
				equal(t, "reused", words(got.status, got.code()), "400 id-reused")
			}
		}
		if n := len(s.log("note")); n != 4 {
			t.Errorf("streams in the log: got %d, want 4", n)
		}
	})
}

// load sends requests until it is told to stop, each until it has a final answer.
type load struct {
	site    *site
	targets atomic.Pointer[[]*instance]
	final   sync.Map     // key → stream
	closed  atomic.Int64 // connections that a stopping instance closed
	unknown atomic.Int64
	sent    atomic.Int64
}

const loadStreams = 12

func (l *load) run(ctx context.Context, worker int) {
	for n := 0; ctx.Err() == nil; n++ {
		key, stream := fmt.Sprintf("w%d-%d", worker, n), fmt.Sprintf("stream-%d", (worker+n)%loadStreams)
		body := fmt.Sprintf(`{"events":[{"type":"note.Noted","data":{"text":%q}},{"type":"note.Noted","data":{"text":"second"}}]}`, key)
		for try := 0; ; try++ {
			targets := *l.targets.Load()
			if l.once(targets[(worker+n+try)%len(targets)], stream, key, body) {
				l.final.Store(key, stream)
				break
			}
		}
	}
}

// once sends a request; false: it must be sent again.
func (l *load) once(i *instance, stream, key, body string) bool {
	request, err := http.NewRequest(http.MethodPost, i.url+"/v1/streams/note/"+stream+"/events", strings.NewReader(body))
	if err != nil {
		l.site.t.Error(err)
		return true
	}
	request.Header.Set("Content-Type", mediaJSON)
	request.Header.Set("Idempotency-Key", key)
	l.sent.Add(1)
	got, err := exchange(request)
	switch {
	case err != nil:
		l.closed.Add(1)
		return false
	case got.status == http.StatusCreated, got.status == http.StatusOK:
		return true
	case got.status == http.StatusServiceUnavailable, got.status == http.StatusTooManyRequests:
		l.unknown.Add(1)
		return false
	}
	l.site.t.Errorf("got %d %s", got.status, got.text)
	return true
}

func TestARollingRestartUnderLoadLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		s := newSite(t, k, 4)
		a, b := s.start(), s.start()
		s.serving(a, b)
		l := &load{site: s}
		l.targets.Store(&[]*instance{a, b})
		ctx, stop := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		for w := range 16 {
			workers.Go(func() { l.run(ctx, w) })
		}
		moved := l.sent.Load()
		for _, old := range []*instance{a, b} {
			testkit.Await(t, "some load", time.Minute, func(context.Context) bool { return l.sent.Load() > moved+200 })
			if err := old.stop(); err != nil {
				t.Errorf("stop under load: %v", err)
			}
			fresh := s.start()
			var left []*instance
			for _, i := range *l.targets.Load() {
				if i != old {
					left = append(left, i)
				}
			}
			left = append(left, fresh)
			l.targets.Store(&left)
			s.serving(left...)
			moved = l.sent.Load()
		}
		testkit.Await(t, "some load behind the restarts", time.Minute, func(context.Context) bool { return l.sent.Load() > moved+200 })
		stop()
		workers.Wait()

		counts := map[string]int{}
		for stream, events := range s.log("note") {
			for n, e := range events {
				if int(e.Version) != n+1 {
					t.Fatalf("stream %s: version %d stands at place %d", stream, e.Version, n+1)
				}
				counts[e.CommandID]++
			}
		}
		keys := 0
		l.final.Range(func(key, _ any) bool {
			keys++
			if counts[key.(string)] != 2 {
				t.Errorf("request %s was answered: %d of its 2 events are in the log", key, counts[key.(string)])
			}
			return true
		})
		for key, n := range counts {
			if _, answered := l.final.Load(key); !answered && key != "probe" {
				t.Errorf("request %s has %d events and was never answered", key, n)
			}
		}
		t.Logf("%d requests in %d sendings, %d connections closed, %d unknown", keys, l.sent.Load(), l.closed.Load(), l.unknown.Load())
		if l.unknown.Load()*20 > l.sent.Load() {
			t.Errorf("%d of %d sendings were answered unknown: clients should rarely see that", l.unknown.Load(), l.sent.Load())
		}
		if keys < 500 {
			t.Errorf("only %d requests were made", keys)
		}
	})
}

func TestNobodyOwnsThePartitionIs503(t *testing.T) {
	t.Parallel()
	s := newSite(t, testkit.Kafkas(t)[0], 1)
	i := s.start(settings{api: func(c *Config) {
		// Only the gateway's topic way is open, and nobody reads the answers.
		g, err := gateway.New(t.Context(), gateway.Config{
			Namespace: s.ns, Categories: []string{"note"}, Kafka: s.opts(), Codec: c.Codec,
			Submit: func(context.Context, engine.Submission) (engine.Outcome, error) {
				return engine.Outcome{}, engine.ErrNotOwner
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		c.Gateway = g
	}})
	got := call(t, http.MethodPost, i.url+noteEvents+"?timeout=500ms", noted)
	equal(t, "answer", words(got.status, got.code(), got.string("outcome"), got.header.Get("Retry-After")), "503 unknown unknown 1")
	if got.string("commandId") == "" {
		t.Error("the key to send again with is not told")
	}
}

func TestADrainLetsRequestsUnderWayFinish(t *testing.T) {
	t.Parallel()
	arrived, let := make(chan struct{}), make(chan struct{})
	api, server := serveAPI(t, loneConfig(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		close(arrived)
		<-let
		return accepting(ctx, r)
	}), localHTTP())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	got := make(chan answered, 1)
	go func() { got <- call(t, http.MethodPost, server.URL()+noteEvents, noted) }()
	<-arrived
	stop()
	<-api.draining.Done() // shutdown has begun
	close(let)
	if a := <-got; a.status != http.StatusCreated {
		t.Errorf("got %d %s, want it done", a.status, a.text)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func localHTTP() service.HTTPConfig {
	cfg := service.DefaultConfig().HTTP
	cfg.Addr = "127.0.0.1:0"
	return cfg
}

// serve runs a server until the test ends.
func serve(t *testing.T, cfg Config, httpConfig service.HTTPConfig) (*API, string) {
	t.Helper()
	api, server := serveAPI(t, cfg, httpConfig)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return api, server.URL()
}

func TestASlowClientIsToldAndLetGo(t *testing.T) {
	t.Parallel()
	httpConfig := localHTTP()
	httpConfig.ReadTimeout = 200 * time.Millisecond
	api, base := serve(t, loneConfig(t, accepting), httpConfig)
	for name, c := range map[string]struct{ text, want string }{
		"a head that does not end": {"POST " + noteEvents + " HTTP/1.1\r\nHost: x\r\nA: ", ""},
		"a body that does not end": {"POST " + noteEvents + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", "408"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, c.text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		text, err := io.ReadAll(bufio.NewReader(conn))
		if err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%s: the connection stays open: %v", name, err)
		}
		if !strings.Contains(string(text), c.want) {
			t.Errorf("%s: got %q, want %q", name, text, c.want)
		}
		_ = conn.Close()
	}
	testkit.Await(t, "nothing is held for them", 10*time.Second, func(context.Context) bool {
		return api.inFlight.Load() == 0 && api.inFlightBytes.Load() == 0
	})
}

func TestARequestMayWaitLongerThanItsReadingMayTake(t *testing.T) {
	t.Parallel()
	httpConfig := localHTTP()
	httpConfig.ReadTimeout = 100 * time.Millisecond
	_, base := serve(t, loneConfig(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		timer := time.NewTimer(300 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return engine.Outcome{Kind: engine.OutcomeUnknown}, nil
		case <-timer.C:
			return accepting(ctx, r)
		}
	}), httpConfig)
	if got := call(t, http.MethodPost, base+noteEvents, noted); got.status != http.StatusCreated {
		t.Errorf("got %d %s, want it accepted", got.status, got.text)
	}
}
