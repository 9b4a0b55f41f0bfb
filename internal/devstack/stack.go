package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Values of StackConfig.Kafka and StackConfig.Postgres that are no addresses.
const (
	KindEmbedded = "embedded"
	KindJVM      = "jvm"
)

// StackConfig says which servers a stack has.
type StackConfig struct {
	// DataDir holds a folder per server. Empty: a temporary folder that Stop
	// removes, with everything in it.
	DataDir string
	// Kafka is [KindEmbedded] (the default), [KindJVM], or the addresses of
	// a broker that runs already, host:port separated by commas.
	Kafka string
	// Postgres is [KindEmbedded] (the default) or the DSN of a server that
	// runs already.
	Postgres string
	// PostgresBinDir is a folder with server binaries; see PostgresConfig.
	PostgresBinDir string
	// KafkaProperties are settings of the Apache Kafka broker; see JVMConfig.
	KafkaProperties map[string]string
	// Logger is handed to the servers. Default: silent.
	Logger *slog.Logger
}

func (c StackConfig) withDefaults() StackConfig {
	if c.Kafka == "" {
		c.Kafka = KindEmbedded
	}
	if c.Postgres == "" {
		c.Postgres = KindEmbedded
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c StackConfig) validate() error {
	var faults []error
	if c.Kafka != KindEmbedded && c.Kafka != KindJVM && !strings.Contains(c.Kafka, ":") {
		faults = append(faults, fmt.Errorf("Kafka is %q; it must be %s, %s or addresses such as 127.0.0.1:9092",
			c.Kafka, KindEmbedded, KindJVM))
	}
	if c.Postgres != KindEmbedded && !strings.ContainsAny(c.Postgres, "=:") {
		faults = append(faults, fmt.Errorf("Postgres is neither %s nor a DSN such as postgres://user@host/database", KindEmbedded))
	}
	return errors.Join(faults...)
}

// Stack is a broker and a Postgres. What runs elsewhere is only named.
type Stack struct {
	// DataDir is where the stack keeps its data; the temporary folder when
	// none was given.
	DataDir string
	// Brokers and DSN are how to connect.
	Brokers []string
	DSN     string

	ephemeral bool
	kafka     server // nil when it runs elsewhere
	postgres  server
	failed    chan error
	stopping  chan struct{}
	watching  sync.WaitGroup
	stopOnce  sync.Once
	stopErr   error
}

// server is what a stack stops.
type server interface{ Stop() error }

// child is a server that may end by itself.
type child interface{ Done() <-chan struct{} }

// StartStack starts both servers at the same time. When one fails, the other
// is stopped. ctx bounds the start only.
func StartStack(ctx context.Context, cfg StackConfig) (*Stack, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	s := &Stack{DataDir: cfg.DataDir, failed: make(chan error, 2), stopping: make(chan struct{})}
	if err := s.makeDataDir(); err != nil {
		return nil, fmt.Errorf("start the stack: %w", err)
	}
	var both errgroup.Group
	both.Go(func() error { return s.startKafka(ctx, cfg) })
	both.Go(func() error { return s.startPostgres(ctx, cfg) })
	if err := both.Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the stack: %w", err), s.Stop())
	}
	s.watch("Kafka", s.kafka)
	s.watch("Postgres", s.postgres)
	return s, nil
}

func (s *Stack) makeDataDir() (err error) {
	if s.DataDir != "" {
		s.DataDir, err = filepath.Abs(s.DataDir)
		return err
	}
	s.ephemeral = true
	if s.DataDir, err = os.MkdirTemp("", "foldstream-*"); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	return os.Chmod(s.DataDir, 0o755) // Postgres may run as another user
}

func (s *Stack) startKafka(ctx context.Context, cfg StackConfig) error {
	dir := filepath.Join(s.DataDir, "kafka-"+cfg.Kafka)
	switch cfg.Kafka {
	case KindEmbedded:
		if s.ephemeral {
			dir = ""
		}
		e, err := StartEmbedded(ctx, EmbeddedConfig{DataDir: dir, Logger: cfg.Logger})
		if err != nil {
			return err
		}
		s.kafka, s.Brokers = e, e.Brokers()
	case KindJVM:
		j, err := StartJVM(ctx, JVMConfig{DataDir: dir, Properties: cfg.KafkaProperties, Logger: cfg.Logger})
		if err != nil {
			return err
		}
		s.kafka, s.Brokers = j, j.Brokers()
	default:
		for broker := range strings.SplitSeq(cfg.Kafka, ",") {
			s.Brokers = append(s.Brokers, strings.TrimSpace(broker))
		}
	}
	return nil
}

func (s *Stack) startPostgres(ctx context.Context, cfg StackConfig) error {
	if cfg.Postgres != KindEmbedded {
		s.DSN = cfg.Postgres
		return nil
	}
	p, err := StartPostgres(ctx, PostgresConfig{
		DataDir: filepath.Join(s.DataDir, "postgres"), BinDir: cfg.PostgresBinDir, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.postgres, s.DSN = p, p.DSN()
	return nil
}

// watch reports a server that ends without being asked to.
func (s *Stack) watch(name string, srv server) {
	c, ok := srv.(child)
	if !ok {
		return
	}
	done := c.Done()
	s.watching.Go(func() {
		select {
		case <-s.stopping:
		case <-done:
			s.failed <- fmt.Errorf("%s ended by itself; its output is below %s", name, s.DataDir)
		}
	})
}

// Failed delivers the name of a server that ended by itself. Nothing is
// restarted; the stack is to be stopped then.
func (s *Stack) Failed() <-chan error { return s.failed }

// Stop stops both servers and removes a temporary folder. Stopping twice is
// harmless and returns the same error.
func (s *Stack) Stop() error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.watching.Wait()
		s.stopErr = errors.Join(stopServer("Kafka", s.kafka), stopServer("Postgres", s.postgres), s.removeTemporary())
	})
	return s.stopErr
}

func stopServer(name string, srv server) error {
	if srv == nil {
		return nil
	}
	if err := srv.Stop(); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}

func (s *Stack) removeTemporary() error {
	if !s.ephemeral {
		return nil
	}
	if err := os.RemoveAll(s.DataDir); err != nil {
		return fmt.Errorf("remove the temporary folder of the stack: %w", err)
	}
	return nil
}
