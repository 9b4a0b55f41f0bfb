package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
)

func startHTTP(t *testing.T, gatherer prometheus.Gatherer) *HTTPServer {
	t.Helper()
	cfg := DefaultConfig().HTTP
	cfg.Addr = "127.0.0.1:0"
	s, err := NewHTTPServer(cfg, gatherer, silent())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want an orderly end", err)
		}
	})
	return s
}

func get(t *testing.T, s *HTTPServer, path string) (int, string) {
	t.Helper()
	answer, err := http.Get("http://" + s.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestReadyzNamesEachCheckWithItsReason(t *testing.T) {
	s := startHTTP(t, NewMetricsRegistry())
	s.AddCheck("ingest", func() error { return nil })
	if status, body := get(t, s, "/readyz"); status != 200 || !strings.Contains(body, `"ready":true`) {
		t.Errorf("got %d %s, want 200 and ready", status, body)
	}
	s.AddCheck("projector", func() error { return errors.New("partition 3 is stalled") })
	status, body := get(t, s, "/readyz")
	var state readiness
	if err := json.Unmarshal([]byte(body), &state); err != nil {
		t.Fatal(err)
	}
	if status != 503 || state.Ready || state.Checks["ingest"] != "ok" || state.Checks["projector"] != "partition 3 is stalled" {
		t.Errorf("got %d %s, want 503 and both checks", status, body)
	}
	if status, _ := get(t, s, "/livez"); status != 200 {
		t.Errorf("livez: got %d, want 200 whatever is ready", status)
	}
}

func TestMetricsAreThoseOfTheRegistryPassedIn(t *testing.T) {
	reg := NewMetricsRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "foldstream_test_total", Help: "x"}))
	s := startHTTP(t, reg)
	if status, body := get(t, s, "/metrics"); status != 200 || !strings.Contains(body, "foldstream_test_total 0") || !strings.Contains(body, "go_goroutines") {
		t.Errorf("got %d\n%s", status, body)
	}
}

func TestNewHTTPServerFailsOnATakenPort(t *testing.T) {
	s := startHTTP(t, NewMetricsRegistry())
	cfg := DefaultConfig().HTTP
	cfg.Addr = s.Addr()
	if _, err := NewHTTPServer(cfg, NewMetricsRegistry(), silent()); err == nil || !strings.Contains(err.Error(), "http.addr") {
		t.Errorf("got %v, want an error that names http.addr", err)
	}
}

func TestLogsCarryTheTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, err := NewLogger(LogConfig{Level: "info", Format: "auto"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	logger.With("a", 1).InfoContext(ctx, "hello")
	logger.Debug("hidden")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("no single JSON line: %v\n%s", err, out.String())
	}
	if line["trace_id"] != "01000000000000000000000000000000" || line["span_id"] != "0200000000000000" || line["a"] != 1.0 {
		t.Errorf("got %v, want the trace's ids and the attribute", line)
	}
	if _, err := NewLogger(LogConfig{Level: "loud"}, io.Discard); err == nil {
		t.Error("level loud: got no error")
	}
}

func TestKafkaOptionsServeSeveralClientsWithOneSetOfMetrics(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "topic"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	reg := prometheus.NewRegistry()
	metrics := NewKafkaMetrics(reg)
	opts, err := KafkaConfig{Brokers: cluster.ListenAddrs(), ClientID: "test"}.Options(silent(), metrics)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		client, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "topic", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	gathered, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]float64{}
	for _, family := range gathered {
		for _, m := range family.GetMetric() {
			seen[family.GetName()] += m.GetCounter().GetValue()
		}
	}
	if seen["foldstream_kafka_produce_records_total"]+seen["foldstream_kafka_connects_total"] < 2 {
		t.Errorf("got %v, want counts of both clients", seen)
	}
	if _, there := seen["foldstream_kafka_buffered_produce_records"]; !there {
		t.Errorf("got %v, want a gauge of what is buffered", seen)
	}
}

func TestKafkaOptionsAuthenticateBySASL(t *testing.T) {
	for _, mechanism := range []string{mechanismScramSHA256, mechanismScramSHA512} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
			kfake.Superuser(strings.ToUpper(mechanism), "ada", "geheim"), kfake.SeedTopics(1, "topic"))
		if err != nil {
			t.Fatal(err)
		}
		ping := func(secretFile string) error {
			opts, err := KafkaConfig{Brokers: cluster.ListenAddrs(), ClientID: "test", SASL: SASLConfig{
				Mechanism: mechanism, Username: "ada", PasswordFile: secretFile,
			}}.Options(silent())
			if err != nil {
				return err
			}
			client, err := kgo.NewClient(opts...)
			if err != nil {
				return err
			}
			defer client.Close()
			return client.Ping(t.Context())
		}
		if err := ping(write(t, "geheim\n")); err != nil {
			t.Errorf("%s: got %v, want to be let in", mechanism, err)
		}
		if err := ping(write(t, "falsch\n")); err == nil || strings.Contains(err.Error(), "falsch") {
			t.Errorf("%s with a wrong password: got %v, want to be refused without the password", mechanism, err)
		}
		if err := ping("/nowhere"); err == nil || !strings.Contains(err.Error(), "kafka.sasl") {
			t.Errorf("%s without its file: got %v, want an error at start", mechanism, err)
		}
		cluster.Close()
	}
}

func TestOptionsWithoutBrokersNameTheWays(t *testing.T) {
	t.Parallel()
	if _, err := (KafkaConfig{}).Options(silent()); !errors.Is(err, ErrNoBrokers) {
		t.Errorf("got %v, want ErrNoBrokers", err)
	}
}

func TestTLSFilesThatCannotBeReadFailAtStart(t *testing.T) {
	t.Parallel()
	for _, cfg := range []TLSConfig{
		{Enabled: true, CAFile: "/nowhere"}, {Enabled: true, CAFile: write(t, "no PEM")},
		{Enabled: true, CertFile: write(t, "x"), KeyFile: write(t, "y")},
	} {
		if _, err := (KafkaConfig{Brokers: []string{"a:1"}, TLS: cfg}).Options(silent()); err == nil || !strings.Contains(err.Error(), "kafka.tls.") {
			t.Errorf("%+v: got %v, want an error that names the key", cfg, err)
		}
	}
}

func TestKafkaClientLogsOneLevelLower(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		level slog.Level
		want  kgo.LogLevel
	}{{slog.LevelDebug, kgo.LogLevelInfo}, {slog.LevelInfo, kgo.LogLevelWarn}, {slog.LevelError, kgo.LogLevelError}} {
		var out bytes.Buffer
		l := kafkaLogger{slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: c.level}))}
		if got := l.Level(); got != c.want {
			t.Errorf("at %s: got %v, want %v", c.level, got, c.want)
		}
	}
	if got := fmt.Sprint(slogLevel(kgo.LogLevelInfo)); got != "DEBUG" {
		t.Errorf("information: got %s, want DEBUG", got)
	}
}

func TestUnknownPathsAnswerAProblem(t *testing.T) {
	s := startHTTP(t, NewMetricsRegistry())
	status, body := get(t, s, "/nope")
	var problem struct {
		Status int
		Code   string
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || status != 404 || problem.Status != 404 || problem.Code != "not-found" {
		t.Errorf("got %d %s (%v), want a problem 404 with code not-found", status, body, err)
	}
}

// syncBuffer is a log that a server and a test share.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestPanicsThatNothingCaughtAreLogged(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig().HTTP
	cfg.Addr = "127.0.0.1:0"
	logs := &syncBuffer{}
	s, err := NewHTTPServer(cfg, NewMetricsRegistry(), slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.Handle("/bug", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("why") }))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if answer, err := http.Get(s.URL() + "/bug"); err == nil {
		_ = answer.Body.Close()
		t.Errorf("got %d, want the connection closed", answer.StatusCode)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if text := logs.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "http: panic serving") {
		t.Errorf("log: got %s, want a warning of the panic", text)
	}
}

func TestHandshakesThatFailAreNoWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		level slog.Level
		want  string
	}{
		{"http: TLS handshake error from 10.0.0.1:4711: EOF", slog.LevelInfo, ""},
		{"http: TLS handshake error from 10.0.0.1:4711: EOF", slog.LevelDebug, "level=DEBUG"},
		{"http: Accept error: too many open files", slog.LevelInfo, "level=WARN"},
	} {
		var out bytes.Buffer
		handler := errorLog{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: c.level})}
		slog.NewLogLogger(handler, slog.LevelWarn).Print(c.line)
		if got := out.String(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q at %s: logged %q, want %q", c.line, c.level, got, c.want)
		}
	}
}
