package devstack

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func startEmbedded(t *testing.T, cfg EmbeddedConfig) *Embedded {
	t.Helper()
	e, err := StartEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stopped(t, e) })
	return e
}

func TestEmbeddedKeepsRecordsAndAddress(t *testing.T) {
	cfg := EmbeddedConfig{DataDir: t.TempDir()}
	first := startEmbedded(t, cfg)
	createTopic(t, first.Brokers(), "t1")
	produce(t, first.Brokers(), "t1", "a", "b")
	stopped(t, first)

	second := startEmbedded(t, cfg)
	if got, want := second.Brokers()[0], first.Brokers()[0]; got != want {
		t.Errorf("address after a restart: got %s, want %s", got, want)
	}
	wantRecords(t, second.Brokers(), "t1", "a", "b")
}

func TestEmbeddedTakesAnotherPortWhenItsOwnIsTaken(t *testing.T) {
	cfg := EmbeddedConfig{DataDir: t.TempDir()}
	first := startEmbedded(t, cfg)
	createTopic(t, first.Brokers(), "t1")
	produce(t, first.Brokers(), "t1", "a")
	stopped(t, first)
	l, err := net.Listen("tcp", first.Brokers()[0])
	if err != nil {
		t.Fatalf("take the port: %v", err)
	}
	defer l.Close()

	second := startEmbedded(t, cfg)
	if second.Brokers()[0] == first.Brokers()[0] {
		t.Errorf("address is %s, which is taken", second.Brokers()[0])
	}
	wantRecords(t, second.Brokers(), "t1", "a")
}

func TestEmbeddedRefusesADataDirectoryInUse(t *testing.T) {
	cfg := EmbeddedConfig{DataDir: t.TempDir()}
	first := startEmbedded(t, cfg)
	_, err := StartEmbedded(t.Context(), cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), cfg.DataDir) {
		t.Errorf("second start: got %v, want ErrInUse that names %s", err, cfg.DataDir)
	}
	stopped(t, first)
	startEmbedded(t, cfg)
}

func TestEmbeddedInMemoryForgets(t *testing.T) {
	first := startEmbedded(t, EmbeddedConfig{})
	createTopic(t, first.Brokers(), "t1")
	produce(t, first.Brokers(), "t1", "a")
	second := startEmbedded(t, EmbeddedConfig{})
	createTopic(t, second.Brokers(), "t1") // fails where it exists
}

func TestEmbeddedRefusesToOpenALogAboveItsLimit(t *testing.T) {
	dir := t.TempDir()
	segment := filepath.Join(dir, "log", "partitions", "t-0", "0.dat")
	if err := os.MkdirAll(filepath.Dir(segment), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segment, embeddedLogMaxBytes+1); err != nil { // a hole: takes no space
		t.Fatal(err)
	}
	_, err := StartEmbedded(t.Context(), EmbeddedConfig{DataDir: dir})
	if !errors.Is(err, ErrLogTooLarge) || !strings.Contains(err.Error(), "--kafka jvm") {
		t.Errorf("got %v, want ErrLogTooLarge with a remedy", err)
	}
	if _, err := os.Stat(segment); err != nil {
		t.Errorf("the refused log was touched: %v", err)
	}
}

func TestEmbeddedWarnsThenRefusesRecords(t *testing.T) {
	logged := &signalBuffer{wrote: make(chan struct{}, 100)}
	e := startEmbedded(t, EmbeddedConfig{
		LogAlarmBytes: 100, LogMaxBytes: 2000, LogCheckEvery: 5 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(logged, nil)),
	})
	createTopic(t, e.Brokers(), "t1")
	produce(t, e.Brokers(), "t1", strings.Repeat("x", 500))
	logged.await(t, "the log is large")
	produce(t, e.Brokers(), "t1", strings.Repeat("x", 5000))
	logged.await(t, "the log is full")

	record := &kgo.Record{Topic: "t1", Value: []byte("one too many")}
	err := newClient(t, e.Brokers()).ProduceSync(t.Context(), record).FirstErr()
	if !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("produce to a full log: got %v, want %v", err, kerr.PolicyViolation)
	}
	wantRecords(t, e.Brokers(), "t1", strings.Repeat("x", 500), strings.Repeat("x", 5000))
}

func TestEmbeddedConfigRefusesLimitsOutOfOrder(t *testing.T) {
	_, err := StartEmbedded(t.Context(), EmbeddedConfig{LogAlarmBytes: 2, LogMaxBytes: 1})
	if err == nil || !strings.Contains(err.Error(), "LogMaxBytes") {
		t.Errorf("got %v, want an error that names LogMaxBytes", err)
	}
}

// signalBuffer collects log lines and signals each write.
type signalBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (b *signalBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.wrote <- struct{}{}:
	default:
	}
	return b.text.Write(line)
}

func (b *signalBuffer) has(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.text.String(), text)
}

func (b *signalBuffer) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !b.has(text) {
		select {
		case <-b.wrote:
		case <-deadline:
			t.Fatalf("nothing logged says %q", text)
		}
	}
}
