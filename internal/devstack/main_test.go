package devstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// envHelper makes the test binary run a server until it is killed; the tests
// of a killed parent start themselves so.
const envHelper = "DEVSTACK_TEST_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envHelper); dir != "" {
		os.Exit(runHelper(dir))
	}
	goleak.VerifyTestMain(m)
}

// runHelper starts both kinds of children and reports their process ids in a
// file, whose appearance is the signal that they are up.
func runHelper(dir string) int {
	ctx := context.Background()
	pg, err := StartPostgres(ctx, PostgresConfig{DataDir: filepath.Join(dir, "pg")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	jvm, err := StartJVM(ctx, JVMConfig{DataDir: filepath.Join(dir, "jvm")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := produceOne(ctx, filepath.Join(dir, "embedded")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := writeJSON(filepath.Join(dir, "pids.json"), []int{pg.PID(), jvm.PID()}, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// produceOne starts an embedded broker, which it leaves running, and stores the
// record "a" in the topic t1.
func produceOne(ctx context.Context, dir string) error {
	e, err := StartEmbedded(ctx, EmbeddedConfig{DataDir: dir})
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, "t1"); err != nil {
		return err
	}
	return client.ProduceSync(ctx, &kgo.Record{Topic: "t1", Value: []byte("a")}).FirstErr()
}

// openDir is a temporary folder that the server's user can pass, which that of
// t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devstack-test-*")
	if err != nil {
		t.Fatalf("make a folder: %v", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("open a folder: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove a folder: %v", err)
		}
	})
	return dir
}

// eventually polls a condition of the system that sends no signal.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
