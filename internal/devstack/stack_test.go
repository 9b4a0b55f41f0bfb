package devstack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStackKeepsItsDataThroughARestart(t *testing.T) {
	t.Parallel()
	cfg := StackConfig{DataDir: openDir(t)}
	first := startStack(t, cfg)
	createTopic(t, first.Brokers, "t1")
	produce(t, first.Brokers, "t1", "a")
	query(t, first.DSN, "WITH t AS (SELECT lo_create(4711)) SELECT 'made' FROM t")
	stopped(t, first)

	second := startStack(t, cfg)
	wantRecords(t, second.Brokers, "t1", "a")
	if got := query(t, second.DSN, "SELECT count(*)::text FROM pg_largeobject_metadata"); got != "1" {
		t.Errorf("objects after a restart: got %s, want 1", got)
	}
}

func TestStackWithoutADirectoryLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startStack(t, StackConfig{Kafka: KindJVM})
	createTopic(t, s.Brokers, "t1")
	stopped(t, s)
	if _, err := os.Stat(s.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", s.DataDir, err)
	}
}

func TestStackNamesServersThatRunElsewhere(t *testing.T) {
	t.Parallel()
	s := startStack(t, StackConfig{DataDir: t.TempDir(), Kafka: "a:1, b:2", Postgres: "host=h dbname=d"})
	if got := strings.Join(s.Brokers, " "); got != "a:1 b:2" {
		t.Errorf("brokers: got %q, want a:1 b:2", got)
	}
	if s.DSN != "host=h dbname=d" {
		t.Errorf("DSN: got %q", s.DSN)
	}
}

func TestStackReportsAServerThatDies(t *testing.T) {
	t.Parallel()
	s := startStack(t, StackConfig{DataDir: openDir(t)})
	if err := s.postgres.(*Postgres).proc.Kill(); err != nil {
		t.Fatalf("kill: %v", err)
	}
	select {
	case err := <-s.Failed():
		if !strings.Contains(err.Error(), "Postgres") {
			t.Errorf("got %v, want an error that names Postgres", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was reported")
	}
}

func TestStackConfigNamesEveryFaultAndNoDSN(t *testing.T) {
	t.Parallel()
	_, err := StartStack(t.Context(), StackConfig{Kafka: "kfake", Postgres: "secret"})
	if err == nil || !strings.Contains(err.Error(), "Kafka") || !strings.Contains(err.Error(), "Postgres") {
		t.Errorf("got %v, want an error that names both", err)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Errorf("the error repeats what may hold a password: %v", err)
	}
}

func startStack(t *testing.T, cfg StackConfig) *Stack {
	t.Helper()
	s, err := StartStack(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stopped(t, s) })
	return s
}

func TestAKilledParentLeavesNoChildAndWholeData(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	dir := openDir(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), envHelper+"="+dir)
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatalf("start the parent: %v", err)
	}
	var pids []int
	eventually(t, "the children are up", func() bool { return readJSON(filepath.Join(dir, "pids.json"), &pids) == nil })
	if err := parent.Process.Kill(); err != nil {
		t.Fatalf("kill the parent: %v", err)
	}
	_ = parent.Wait() // it says that it was killed
	for _, pid := range pids {
		eventually(t, "a child ends", func() bool { return hasEnded(pid) })
	}
	// All data directories are free and whole again.
	p := startPostgres(t, PostgresConfig{DataDir: filepath.Join(dir, "pg")})
	if got := query(t, p.DSN(), "SELECT 'alive'"); got != "alive" {
		t.Errorf("got %q, want alive", got)
	}
	startJVM(t, filepath.Join(dir, "jvm"))
	e := startEmbedded(t, EmbeddedConfig{DataDir: filepath.Join(dir, "embedded")})
	wantRecords(t, e.Brokers(), "t1", "a")
}

// hasEnded counts a process as ended that nobody has waited for yet: its new
// parent may be slow.
func hasEnded(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}
