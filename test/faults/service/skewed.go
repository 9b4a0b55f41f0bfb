package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/ingest"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// skewedCommand runs an ingest whose host has a wrong clock. A process of Go takes its time from
// the kernel without a library that could be faked, and the stock service takes no clock from
// outside; so this one is put together here, of the same parts, with a clock of its own:
//
//	service skewed-ingest 1h
const skewedCommand = "skewed-ingest"

func runSkewed(args []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serveSkewed(ctx, args, log); err != nil {
		log.Error("skewed ingest ends", "cause", err)
		return 1
	}
	return 0
}

func serveSkewed(ctx context.Context, args []string, log *slog.Logger) error {
	if len(args) != 1 {
		return errors.New("want one argument, how far the clock is off, such as 1h or -1h")
	}
	skew, err := time.ParseDuration(args[0])
	if err != nil {
		return fmt.Errorf("how far the clock is off: %w", err)
	}
	session, err := time.ParseDuration(os.Getenv("FOLDSTREAM_INGEST_SESSION_TIMEOUT"))
	if err != nil {
		return fmt.Errorf("session time-out: %w", err)
	}
	clock := func() time.Time { return time.Now().Add(skew) }
	namespace := os.Getenv("FOLDSTREAM_NAMESPACE")
	kafka := []kgo.Opt{kgo.SeedBrokers(strings.Split(os.Getenv("FOLDSTREAM_KAFKA_BROKERS"), ",")...)}
	schemas, err := registry.NewTopic(registry.TopicConfig{Opts: kafka, Namespace: namespace, Logger: log, Clock: clock})
	if err != nil {
		return err
	}
	defer schemas.Close()
	accounts := project.Accounts().Definition()
	service, err := ingest.New(ctx, ingest.Config{
		Namespace: namespace, Kafka: kafka, Registry: schemas, SessionTimeout: session,
		Instance: fmt.Sprintf("skewed/%d", os.Getpid()), Logger: log, Clock: clock,
		Categories: []ingest.Category{
			{Name: project.Log, Mode: topics.ModeAppend},
			{Name: project.Account, Mode: topics.ModeDecider, Decider: &accounts},
		},
	})
	if err != nil {
		return err
	}
	return service.Run(ctx)
}
