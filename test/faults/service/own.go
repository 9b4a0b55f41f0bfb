package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/test/faults/project"
)

// ownCommand runs an ingest that is put together here, of the stock service's parts:
//
//	service own-ingest -skew 1h
//
// Its clock may be wrong: a process of Go takes its time from the kernel without a library that
// could be faked, and the stock service takes no clock from outside. And it takes requests in
// memory, as the engine offers it, by POST /submit.
const ownCommand = "own-ingest"

func runOwn(args []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serveOwn(ctx, args, log); err != nil {
		log.Error("own ingest ends", "cause", err)
		return 1
	}
	return 0
}

func serveOwn(ctx context.Context, args []string, log *slog.Logger) error {
	flags := flag.NewFlagSet(ownCommand, flag.ContinueOnError)
	skew := flags.Duration("skew", 0, "how far the clock is off")
	if err := flags.Parse(args); err != nil {
		return err
	}
	session, err := time.ParseDuration(os.Getenv("FOLDSTREAM_INGEST_SESSION_TIMEOUT"))
	if err != nil {
		return fmt.Errorf("session time-out: %w", err)
	}
	clock := func() time.Time { return time.Now().Add(*skew) }
	namespace := os.Getenv("FOLDSTREAM_NAMESPACE")
	kafka := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(os.Getenv("FOLDSTREAM_KAFKA_BROKERS"), ",")...), kgo.ClientID(os.Getenv("FOLDSTREAM_KAFKA_CLIENT_ID")),
	}
	schemas, err := registry.NewTopic(registry.TopicConfig{Opts: kafka, Namespace: namespace, Logger: log, Clock: clock})
	if err != nil {
		return err
	}
	defer schemas.Close()
	accounts, metrics := project.Accounts().Definition(), prometheus.NewRegistry()
	writer, err := engine.New(ctx, engine.Config{
		Namespace: namespace, Kafka: kafka, Registry: schemas, SessionTimeout: session, Registerer: metrics,
		Instance: fmt.Sprintf("own/%d", os.Getpid()), Logger: log, Clock: clock,
		Categories: []engine.Category{{Name: project.Log}, {Name: project.Account, Decider: &accounts}},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(writer, metrics), ReadHeaderTimeout: 5 * time.Second}
	defer server.Close()
	go func() { _ = server.Serve(listener) }()
	log.Info("HTTP is served", "addr", listener.Addr().String())
	return writer.Run(ctx)
}

// Submitted is a request as POST /submit takes it.
type Submitted struct {
	Category string
	Stream   string
	ID       string
	Type     string
	Expected string
	Time     time.Time
	Value    []byte
}

func handler(writer *engine.Engine, metrics *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := writer.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /submit", func(w http.ResponseWriter, r *http.Request) { submit(w, r, writer) })
	return mux
}

// submit answers 200 with an outcome, 409 when the request is certainly not stored by this call,
// and 500 when its fate is not known.
func submit(w http.ResponseWriter, r *http.Request, writer *engine.Engine) {
	var s Submitted
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	expected, err := event.ParseExpected(s.Expected)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	outcome, err := writer.Submit(r.Context(), engine.Submission{
		Category: s.Category, StreamID: s.Stream, Value: s.Value,
		Request: event.Request{ID: s.ID, Type: s.Type, Expected: expected, Time: s.Time, ReplyTo: event.ReplyTo{Partition: -1}},
	})
	switch {
	case errors.Is(err, engine.ErrNotOwner) || errors.Is(err, engine.ErrBusy):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		_ = json.NewEncoder(w).Encode(outcome) // the client takes what is cut for unknown
	}
}
