package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/devstack"
)

func TestMain(m *testing.M) { os.Exit(MainNoLeaks(m)) }

func TestEveryKafkaStoresARecord(t *testing.T) {
	for _, k := range Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			topic := Namespace(t) + ".t"
			k.CreateTopic(t, topic, 1, map[string]string{"retention.ms": "-1"})
			record := &kgo.Record{Topic: topic, Value: []byte("v")}
			if err := k.Client(t).ProduceSync(t.Context(), record).FirstErr(); err != nil {
				t.Fatalf("produce: %v", err)
			}
			fetches := k.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())).
				PollFetches(t.Context())
			if got := fetches.Records(); len(got) != 1 || string(got[0].Value) != "v" {
				t.Errorf("read %d records (%v), want the one", len(got), fetches.Errors())
			}
		})
	}
}

func TestKafkasAreShared(t *testing.T) {
	first, second := Kafkas(t), Kafkas(t)
	if first[0].Name != Kfake {
		t.Errorf("the first broker is %s, want %s", first[0].Name, Kfake)
	}
	for i := range first {
		if first[i].Seeds()[0] != second[i].Seeds()[0] {
			t.Errorf("%s is at %s, then at %s", first[i].Name, first[i].Seeds()[0], second[i].Seeds()[0])
		}
	}
}

func TestEveryPostgresGivesDatabasesOfTheirOwn(t *testing.T) {
	for _, p := range Postgreses(t) {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			dsn := p.NewDatabase(t)
			other := p.NewDatabase(t)
			execute(t, dsn, "CREATE TABLE mine (n int)")
			execute(t, other, "CREATE TABLE mine (n int)") // fails where it is the same database
		})
	}
}

func TestADatabaseIsDroppedWithItsConnections(t *testing.T) {
	p := Postgreses(t)[0]
	var dsn string
	t.Run("use", func(t *testing.T) {
		dsn = p.NewDatabase(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		t.Cleanup(func() { _ = conn.Close(t.Context()) }) // the server has cut it by then
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Errorf("the database is still there after its test")
	}
}

func TestNamespacesAreValidAndDiffer(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	seen := map[string]bool{}
	for range 100 {
		ns := Namespace(t)
		if !valid.MatchString(ns) || seen[ns] {
			t.Fatalf("namespace %q is invalid or came twice", ns)
		}
		seen[ns] = true
	}
}

func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestAKilledBrokerComesBackWithItsRecords(t *testing.T) {
	k := StartKafkaJVM(t, ForCrashes(), WithProperty("producer.id.expiration.ms", "60000"))
	k.CreateTopic(t, "t1", 1, nil)
	client := k.Client(t, kgo.ConsumeTopics("t1"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "t1", Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	k.Kill()
	k.Restart()
	if got := client.PollFetches(t.Context()).NumRecords(); got != 1 {
		t.Errorf("records after the kill: got %d, want 1", got)
	}
}

func TestAProcessIsKilledPausedAndRunAgain(t *testing.T) {
	p := StartProcess(t, func() *exec.Cmd { return exec.Command("sleep", "60") })
	first := p.PID()
	p.Pause()
	p.Kill() // also while it is paused
	<-p.Done()
	p.Start()
	if second := p.PID(); second == first {
		t.Errorf("the second run has the process id of the first, %d", second)
	}
	p.Pause()
	p.Stop() // also while it is paused
	<-p.Done()
}

func TestABuiltCommandRunsAndItsOutputIsKept(t *testing.T) {
	path := Build(t, "github.com/foldstream/foldstream/internal/testkit/testdata/echo")
	if again := Build(t, "github.com/foldstream/foldstream/internal/testkit/testdata/echo"); again != path {
		t.Errorf("the second build is at %s, the first at %s", again, path)
	}
	p := StartProcess(t, func() *exec.Cmd { return exec.Command(path, "hello") })
	<-p.Done()
	if got := p.Output(); got != "hello" {
		t.Errorf("output: got %q, want hello", got)
	}
}

func TestAMissingServerIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "missing")
	t.Setenv(EnvMissingFile, file)
	t.Setenv(EnvRequireAll, "")
	var s servers
	cause := fmt.Errorf("no such thing:\n%w", devstack.ErrUnavailable)
	s.missing(t, "thing", cause)
	s.missing(t, "thing", cause)
	want := "MISSING thing: " + strings.ReplaceAll(cause.Error(), "\n", " ") + "\n"
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("file: got %q, %v, want %q, once", got, err, want)
	}
	if lines := s.absentLines(); len(lines) != 1 || lines[0]+"\n" != want {
		t.Errorf("lines: got %q, want %q", lines, want)
	}
}

func TestAMissingServerFailsWhereAllAreRequired(t *testing.T) {
	t.Setenv(EnvRequireAll, "1")
	t.Setenv(EnvMissingFile, "")
	var s servers
	probe := &fatalProbe{TB: t}
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine of a test
		defer close(done)
		s.missing(probe, "thing", devstack.ErrUnavailable)
	}()
	<-done
	if !probe.fatal {
		t.Error("the test went on")
	}
}

// fatalProbe notes a Fatalf instead of failing the test.
type fatalProbe struct {
	testing.TB
	fatal bool
}

func (p *fatalProbe) Fatalf(string, ...any) {
	p.fatal = true
	runtime.Goexit()
}

func TestTheDSNOfADatabase(t *testing.T) {
	cases := map[string]string{
		"postgres://u:p@h:1/old?sslmode=disable": "postgres://u:p@h:1/new?sslmode=disable",
		"postgresql://h":                         "postgresql://h/new",
		"host=h dbname=old":                      "host=h dbname=old dbname=new",
	}
	for dsn, want := range cases {
		if got, err := withDatabase(dsn, "new"); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", dsn, got, err, want)
		}
	}
}

func TestFoldersOfTheDeadAreSwept(t *testing.T) {
	parent := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"run-dead", "run-alive", "run-young"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "run-young" {
			if err := os.Chtimes(filepath.Join(parent, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	lock := flock.New(filepath.Join(parent, "run-alive.lock"))
	if held, err := lock.TryLock(); err != nil || !held {
		t.Fatalf("lock: %v, %v", held, err)
	}
	defer func() { _ = lock.Unlock() }()
	sweep(parent)
	left, err := filepath.Glob(filepath.Join(parent, "run-*[a-z]"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if got, want := strings.Join(left, " "), "run-alive run-alive.lock run-young"; got != want {
		t.Errorf("left: got %q, want %q", got, want)
	}
}
