package testkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/foldstream/foldstream/internal/devstack"
)

const (
	// EnvRequireAll, set to 1, makes a missing server a failure.
	EnvRequireAll = "FOLDSTREAM_REQUIRE_ALL"
	// EnvMissingFile names a file to which each missing server is appended,
	// one line each, so that a run over many packages can end with them.
	EnvMissingFile = "FOLDSTREAM_MISSING_FILE"
)

// startTimeout leaves room for a first fetch of the servers' software.
const startTimeout = 10 * time.Minute

func startContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startTimeout)
}

// shared is the one piece of state of this package: servers are started once
// per test process, and the testing package has no place to keep them.
var shared servers

type servers struct {
	mu       sync.Mutex // guards all; held while a server starts
	dir      string
	dirLock  *flock.Flock
	brokers  map[string]*Kafka
	stores   map[devstack.PostgresSource]*Postgres
	absent   map[string]error // by the server's name
	stoppers []func() error
}

func (s *servers) kfake(t testing.TB) *Kafka {
	t.Helper()
	return s.broker(t, Kfake, func(string) (*Kafka, func() error, error) {
		cluster, err := kfake.NewCluster(kfakeOptions()...)
		if err != nil {
			return nil, nil, err
		}
		return WrapKfake(cluster), func() error { cluster.Close(); return nil }, nil
	})
}

func (s *servers) jvm(t testing.TB) *Kafka {
	t.Helper()
	return s.broker(t, JVM, func(dir string) (*Kafka, func() error, error) {
		ctx, cancel := startContext()
		defer cancel()
		jvm, err := devstack.StartJVM(ctx, jvmConfig(dir))
		if err != nil {
			return nil, nil, err
		}
		return &Kafka{Name: JVM, seeds: jvm.Brokers()}, jvm.Stop, nil
	})
}

// broker returns the shared broker of that name, started at the first call, or
// nil when the machine cannot run it.
func (s *servers) broker(t testing.TB, name string, start func(dir string) (*Kafka, func() error, error)) *Kafka {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.brokers[name]; k != nil {
		return k
	}
	if s.isAbsent(t, name) {
		return nil
	}
	k, stop, err := start(s.folder(t, name))
	if err != nil {
		s.startFailed(t, name, err)
		return nil
	}
	if s.brokers == nil {
		s.brokers = map[string]*Kafka{}
	}
	s.brokers[name] = k
	s.stoppers = append(s.stoppers, stop)
	return k
}

func (s *servers) postgres(t testing.TB, source devstack.PostgresSource) *Postgres {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.stores[source]; p != nil {
		return p
	}
	name := "postgres of the " + source.String()
	if s.isAbsent(t, name) {
		return nil
	}
	ctx, cancel := startContext()
	defer cancel()
	server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{
		DataDir: s.folder(t, "postgres-"+source.String()),
		Source:  source,
		// Nothing here has to survive the machine.
		Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "max_connections": "300"},
	})
	if err != nil {
		s.startFailed(t, name, err)
		return nil
	}
	if s.stores == nil {
		s.stores = map[devstack.PostgresSource]*Postgres{}
	}
	p := &Postgres{Name: fmt.Sprintf("postgres%d", server.Major()), dsn: server.DSN()}
	s.stores[source] = p
	s.stoppers = append(s.stoppers, server.Stop)
	return p
}

// startFailed tells a machine without the server from a server that is broken:
// only the first may be left out.
func (s *servers) startFailed(t testing.TB, name string, err error) {
	t.Helper()
	if !errors.Is(err, devstack.ErrUnavailable) {
		t.Fatalf("start the shared %s: %v", name, err)
	}
	s.noteAbsent(t, name, err)
}

// missing notes a server that the machine cannot run.
func (s *servers) missing(t testing.TB, name string, err error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isAbsent(t, name) {
		s.noteAbsent(t, name, err)
	}
}

func (s *servers) isAbsent(t testing.TB, name string) bool {
	t.Helper()
	err := s.absent[name]
	if err != nil && os.Getenv(EnvRequireAll) == "1" {
		t.Fatalf("%s is missing and %s is set: %v", name, EnvRequireAll, err)
	}
	return err != nil
}

func (s *servers) noteAbsent(t testing.TB, name string, err error) {
	t.Helper()
	if s.absent == nil {
		s.absent = map[string]error{}
	}
	s.absent[name] = err
	if path := os.Getenv(EnvMissingFile); path != "" {
		if err := appendLine(path, absentLine(name, err)); err != nil {
			t.Errorf("note a missing server: %v", err)
		}
	}
	if s.isAbsent(t, name) { // which fails the test where all are required
		t.Logf("left out: %s", absentLine(name, err))
	}
}

func absentLine(name string, err error) string {
	return fmt.Sprintf("MISSING %s: %s", name, strings.ReplaceAll(err.Error(), "\n", " "))
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

func (s *servers) reasons() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.absentLines(), "; ")
}

func (s *servers) absentLines() []string {
	var lines []string
	for name, err := range s.absent {
		lines = append(lines, absentLine(name, err))
	}
	slices.Sort(lines)
	return lines
}

// folder is where the shared server of that name keeps its data. The parent is
// locked for the life of this process, so that a later process can tell the
// folders of the dead from those of the living.
func (s *servers) folder(t testing.TB, name string) string {
	t.Helper()
	if s.dir == "" {
		if err := s.makeDir(); err != nil {
			t.Fatalf("make the folder of the shared servers: %v", err)
		}
	}
	return filepath.Join(s.dir, name)
}

func (s *servers) makeDir() error {
	parent := filepath.Join(os.TempDir(), fmt.Sprintf("foldstream-tests-%d", os.Getuid()))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	sweep(parent)
	dir, err := os.MkdirTemp(parent, "run-*")
	if err != nil {
		return err
	}
	// Postgres may have to run as another user, who must be let through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLock(); err != nil {
		return err
	}
	s.dir, s.dirLock = dir, lock
	return nil
}

// sweepAgeMin spares a folder that another process made but has not locked
// yet.
const sweepAgeMin = time.Minute

// sweep removes what test processes that were killed have left.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, "run-*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < sweepAgeMin {
			continue
		}
		lock := flock.New(dir + ".lock")
		if held, err := lock.TryLock(); err == nil && held {
			_ = os.RemoveAll(dir)
			_ = os.Remove(lock.Path())
			_ = lock.Unlock()
		}
	}
}

// stop ends the shared servers, the last started first.
func (s *servers) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []error
	for _, stop := range slices.Backward(s.stoppers) {
		faults = append(faults, stop())
	}
	s.stoppers, s.brokers, s.stores = nil, nil, nil
	if s.dir != "" {
		faults = append(faults, os.RemoveAll(s.dir), os.Remove(s.dirLock.Path()), s.dirLock.Unlock())
		s.dir = ""
	}
	return errors.Join(faults...)
}
