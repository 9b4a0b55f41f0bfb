package devstack

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestJVMKeepsRecordsThroughKillAndRestart(t *testing.T) {
	t.Parallel()
	j := startJVM(t, t.TempDir())
	createTopic(t, j.Brokers(), "t1")
	produce(t, j.Brokers(), "t1", "a", "b", "c")

	if err := j.Kill(); err != nil {
		t.Fatalf("kill: %v", err)
	}
	before := j.Brokers()
	if err := j.Restart(t.Context()); err != nil {
		t.Fatalf("restart: %v", err)
	}
	if got, want := j.Brokers()[0], before[0]; got != want {
		t.Errorf("address after the restart is %s, want %s", got, want)
	}
	wantRecords(t, j.Brokers(), "t1", "a", "b", "c")
}

func startJVM(t *testing.T, dir string) *JVM {
	t.Helper()
	j, err := StartJVM(t.Context(), JVMConfig{
		DataDir:    dir,
		Properties: map[string]string{"broker.session.timeout.ms": "1500", "broker.heartbeat.interval.ms": "300"},
		JavaFlags:  []string{"-XX:TieredStopAtLevel=1"},
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := j.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return j
}

func newClient(t *testing.T, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

func createTopic(t *testing.T, brokers []string, topic string) {
	t.Helper()
	_, err := kadm.NewClient(newClient(t, brokers)).CreateTopic(t.Context(), 1, 1, nil, topic)
	if err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

func produce(t *testing.T, brokers []string, topic string, values ...string) {
	t.Helper()
	client := newClient(t, brokers, kgo.ProducerBatchCompression(kgo.NoCompression()))
	for _, v := range values {
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr()
		if err != nil {
			t.Fatalf("produce %q: %v", v, err)
		}
	}
}

func wantRecords(t *testing.T, brokers []string, topic string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := newClient(t, brokers, kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var got []string
	for len(got) < len(want) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %s: %v after %q, want %q", topic, err, got, want)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("records of %s are %q, want %q", topic, got, want)
		}
	}
}

func TestJVMStopsCleanlyAndKeepsItsAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startJVM(t, dir)
	createTopic(t, first.Brokers(), "t1")
	produce(t, first.Brokers(), "t1", "a")
	stopped(t, first)
	if err := first.Restart(t.Context()); err == nil {
		t.Error("a stopped broker was restarted, without the lock of its directory")
	}

	second := startJVM(t, dir)
	if got, want := second.Brokers()[0], first.Brokers()[0]; got != want {
		t.Errorf("address after a restart: got %s, want %s", got, want)
	}
	if got, want := second.ClusterID(), first.ClusterID(); got != want {
		t.Errorf("cluster id after a restart: got %s, want %s", got, want)
	}
	wantRecords(t, second.Brokers(), "t1", "a")
}

func TestJVMsAreClustersOfTheirOwn(t *testing.T) {
	t.Parallel()
	first, second := startJVM(t, t.TempDir()), startJVM(t, t.TempDir())
	if first.ClusterID() == second.ClusterID() {
		t.Errorf("both brokers are of cluster %s", first.ClusterID())
	}
	createTopic(t, first.Brokers(), "t1")
	createTopic(t, second.Brokers(), "t1") // fails where it is the same broker
}

func TestJVMPausedDoesNotAnswerAndGoesOn(t *testing.T) {
	t.Parallel()
	j := startJVM(t, t.TempDir())
	createTopic(t, j.Brokers(), "t1")
	if err := j.Pause(); err != nil {
		t.Fatalf("pause: %v", err)
	}
	client := newClient(t, j.Brokers())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t1", Value: []byte("p")}).FirstErr(); err == nil {
		t.Error("a paused broker acknowledged a record")
	}
	if err := j.Resume(); err != nil {
		t.Fatalf("resume: %v", err)
	}
	produce(t, j.Brokers(), "t1", "b")
}

func TestJVMRefusesADataDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startJVM(t, dir)
	_, err := StartJVM(t.Context(), JVMConfig{DataDir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second start: got %v, want ErrInUse that names %s", err, dir)
	}
}

func TestJVMTakesOtherPortsWhenItsOwnAreTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startJVM(t, dir)
	stopped(t, first)
	l, err := net.Listen("tcp", first.Brokers()[0])
	if err != nil {
		t.Fatalf("take the port: %v", err)
	}
	defer l.Close()
	second := startJVM(t, dir)
	if second.Brokers()[0] == first.Brokers()[0] {
		t.Errorf("address is %s, which is taken", second.Brokers()[0])
	}
	createTopic(t, second.Brokers(), "t1")
}

func TestJVMThatCannotStartSaysWhatItWrote(t *testing.T) {
	t.Parallel()
	_, err := StartJVM(t.Context(), JVMConfig{
		DataDir: t.TempDir(), Properties: map[string]string{"num.io.threads": "none"},
	})
	if err == nil || !strings.Contains(err.Error(), "num.io.threads") {
		t.Errorf("got %v, want the broker's own words about num.io.threads", err)
	}
}

func TestJVMUnavailable(t *testing.T) {
	cases := map[string]struct {
		cfg  JVMConfig
		path string
		want string
	}{
		"no Java":  {JVMConfig{Java: "no-such-java"}, os.Getenv("PATH"), "install a Java runtime"},
		"no jars":  {JVMConfig{LibsDir: t.TempDir()}, os.Getenv("PATH"), "holds no jars"},
		"no Maven": {JVMConfig{CacheDir: t.TempDir(), Java: mustFind(t, "java")}, t.TempDir(), EnvKafkaLibs},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", c.path)
			c.cfg.DataDir = t.TempDir()
			_, err := StartJVM(t.Context(), c.cfg)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrUnavailable that says %q", err, c.want)
			}
		})
	}
}

func TestJVMRunsFromAnOfflineFolderWithAFreshCache(t *testing.T) {
	libs, err := findKafka(t.Context(), JVMConfig{}.withDefaults())
	if err != nil {
		t.Fatalf("find the jars: %v", err)
	}
	t.Setenv(EnvKafkaLibs, filepath.Join(libs.cacheDir, "libs"))
	cache := t.TempDir()
	j, err := StartJVM(t.Context(), JVMConfig{DataDir: t.TempDir(), CacheDir: cache})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	stopped(t, j)
	if found, _ := filepath.Glob(filepath.Join(cache, "kafka-*", "classes-*.jsa")); len(found) != 1 {
		t.Errorf("archives of classes after a clean stop: got %v, want one", found)
	}
}

func mustFind(t *testing.T, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Fatalf("find %s: %v", command, err)
	}
	return path
}
