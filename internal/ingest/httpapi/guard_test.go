package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// panicking is a gateway with a bug.
func panicking(context.Context, gateway.Request) (engine.Outcome, error) { panic("secret payload") }

func TestAPanicIsAnswered500AndLoggedWithoutPayload(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target, body string
	}{"one request": {noteEvents, noted}, "a batch": {batchAppend, goodBatch}} {
		var logs bytes.Buffer
		api := lone(t, panicking, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logs, nil)) })
		got := send(t, api, http.MethodPost, c.target, c.body)
		equal(t, name, words(got.status, got.code()), "500 bug")
		if text := logs.String(); strings.Contains(text+got.text, "secret") || !strings.Contains(text, "httpapi.panicking:") {
			t.Errorf("%s: got %s, want the place and no payload", name, text)
		}
		equal(t, name+": counted", testutil.ToFloat64(api.metrics.Panics), 1.0)
		equal(t, name+": in flight", api.inFlight.Load()+api.inBatches.Load()+api.inFlightBytes.Load(), int64(0))
	}
}

func TestAPanicBehindTheAnswersBeginEndsTheConnectionAndIsCounted(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	handler := api.guarded(route{operation: &huma.Operation{OperationID: "late"}, serve: func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusAccepted)
		panic("secret payload")
	}})
	ended := func() (value any) {
		defer func() { value = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		return nil
	}()
	if ended != http.ErrAbortHandler { //nolint:errorlint // the very value that net/http looks for
		t.Errorf("got %v, want the connection ended", ended)
	}
	equal(t, "panics", testutil.ToFloat64(api.metrics.Panics), 1.0)
	equal(t, "in flight", testutil.ToFloat64(api.metrics.Of("late").InFlight), 0.0)
	equal(t, "its place is free", api.inFlight.Load(), int64(0))
}

func TestErrorsOfTheGatewayAre503Or429(t *testing.T) {
	t.Parallel()
	var err error
	var logs bytes.Buffer
	api := lone(t, func(context.Context, gateway.Request) (engine.Outcome, error) { return engine.Outcome{}, err },
		func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logs, nil)) })
	err = fmt.Errorf("%w: why", gateway.ErrOverloaded)
	got := send(t, api, http.MethodPost, noteEvents, noted)
	equal(t, "overloaded", words(got.status, got.code(), got.header.Get("Retry-After")), "429 overloaded 1")
	got = send(t, api, http.MethodPost, batchAppend, goodBatch)
	if got.status != http.StatusOK || !strings.Contains(got.text, `"status":429,"code":"overloaded"`) {
		t.Errorf("overloaded in a batch: got %d %s", got.status, got.text)
	}
	err = errors.New("broker is on fire")
	got = send(t, api, http.MethodPost, noteEvents, noted)
	equal(t, "unavailable", words(got.status, got.code(), got.header.Get("Retry-After")), "503 unavailable 1")
	if strings.Contains(got.text, "fire") || !strings.Contains(logs.String(), "fire") {
		t.Errorf("the cause belongs into the log alone: %s, %s", got.text, logs.String())
	}
	got = send(t, api, http.MethodPost, batchAppend, goodBatch)
	if !strings.Contains(got.text, `"status":503,"code":"unavailable"`) {
		t.Errorf("unavailable in a batch: got %s", got.text)
	}
}

func TestMoreThanMayIsTurnedAway(t *testing.T) {
	t.Parallel()
	arrived, let := make(chan struct{}, 1), make(chan struct{})
	api := lone(t, func(ctx context.Context, r gateway.Request) (engine.Outcome, error) {
		arrived <- struct{}{}
		<-let
		return accepting(ctx, r)
	}, func(c *Config) { c.Limits.InFlightMax = 1 })
	first := make(chan int, 1)
	go func() { first <- send(t, api, http.MethodPost, noteEvents, noted).status }()
	<-arrived
	got := send(t, api, http.MethodPost, noteEvents, noted)
	equal(t, "the second", words(got.status, got.code(), got.header.Get("Retry-After")), "429 overloaded 1")
	close(let)
	equal(t, "the first", <-first, http.StatusCreated)
	equal(t, "the next", send(t, api, http.MethodPost, noteEvents, noted).status, http.StatusCreated)
}

func TestBodiesTogetherHaveALimit(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting, func(c *Config) {
		c.Limits.BodyBytesMax, c.Limits.BatchBytesMax, c.Limits.InFlightBytesMax = 1000, 1000, 1000
	})
	api.inFlightBytes.Add(990)
	got := send(t, api, http.MethodPost, noteEvents, noted)
	equal(t, "beyond", words(got.status, got.code()), "429 overloaded")
	api.inFlightBytes.Add(-990)
	equal(t, "within", send(t, api, http.MethodPost, noteEvents, noted).status, http.StatusCreated)
	equal(t, "too large", send(t, api, http.MethodPost, noteEvents, strings.Repeat(" ", 1001)).status, http.StatusRequestEntityTooLarge)

	chunked := httptest.NewRequest(http.MethodPost, noteEvents, strings.NewReader(strings.Repeat(" ", 1001)))
	chunked.ContentLength = -1
	chunked.Header.Set("Content-Type", mediaJSON)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, chunked)
	equal(t, "too large in chunks", w.Code, http.StatusRequestEntityTooLarge)
	equal(t, "bytes held", api.inFlightBytes.Load(), int64(0))
}

func TestATokenGuardsAllButTheDocument(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting, func(c *Config) {
		c.Authorized = func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer t" }
	})
	got := send(t, api, http.MethodPost, noteEvents, noted)
	equal(t, "without", words(got.status, got.code(), got.header.Get("WWW-Authenticate")), "401 unauthorized Bearer")
	equal(t, "on a path that is none", send(t, api, http.MethodGet, "/v1/nope", "").status, http.StatusUnauthorized)
	equal(t, "with", send(t, api, http.MethodPost, noteEvents, noted, "Authorization", "Bearer t").status, http.StatusCreated)
	equal(t, "the document", send(t, api, http.MethodGet, documentPath, "").status, http.StatusOK)
}

func TestRequestsAreCountedByRouteAndStatus(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	api := lone(t, accepting, func(c *Config) { c.Registerer = registry })
	send(t, api, http.MethodPost, noteEvents, noted)
	send(t, api, http.MethodPost, noteEvents, `{`)
	send(t, api, http.MethodPost, "/v1/nope", "")
	left, leave := context.WithCancel(t.Context())
	leave()
	request := httptest.NewRequestWithContext(left, http.MethodPost, noteEvents, strings.NewReader(noted))
	request.Header.Set("Content-Type", mediaJSON)
	api.ServeHTTP(httptest.NewRecorder(), request)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP foldstream_http_requests_total Requests answered, by route and status.
# TYPE foldstream_http_requests_total counter
foldstream_http_requests_total{route="append-events",status="201"} 1
foldstream_http_requests_total{route="append-events",status="400"} 1
foldstream_http_requests_total{route="append-events",status="499"} 1
# HELP foldstream_http_refused_total Requests refused before their route was asked, by code.
# TYPE foldstream_http_refused_total counter
foldstream_http_refused_total{code="not-found"} 1
`), "foldstream_http_requests_total", "foldstream_http_refused_total"); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesABadConfig(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Namespace: "No", Limits: Limits{BodyBytesMax: -1, InFlightBytesMax: 1, RequestTimeout: TimeoutMax + 1}})
	for _, want := range []string{"namespace", "BodyBytesMax", "InFlightBytesMax", "RequestTimeout", "are required"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a fault of %s", err, want)
		}
	}
}
