//go:build container

package container

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tckafka "github.com/testcontainers/testcontainers-go/modules/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	imageDefault  = "confluentinc/confluent-local:7.8.0"
	suitesDefault = "./internal/testkit"

	startTimeout  = 5 * time.Minute // with the pull of the image
	checkTimeout  = time.Minute
	suitesTimeout = 15 * time.Minute
)

func TestKafkaInAContainer(t *testing.T) {
	brokers := startKafka(t)
	t.Run("stores a record", func(t *testing.T) { storesARecord(t, brokers) })
	t.Run("passes the suites", func(t *testing.T) { passesTheSuites(t, brokers) })
}

func startKafka(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	image := cmp.Or(os.Getenv("FOLDSTREAM_CONTAINER_IMAGE"), imageDefault)
	broker, err := tckafka.Run(ctx, image, tckafka.WithClusterID("foldstream-container"))
	testcontainers.CleanupContainer(t, broker) // also after a failed start
	if err != nil {
		t.Fatalf("start %s (is a container engine running?): %v", image, err)
	}
	brokers, err := broker.Brokers(ctx)
	if err != nil {
		t.Fatalf("find the address of the broker: %v", err)
	}
	return brokers
}

func storesARecord(t *testing.T, brokers []string) {
	ctx, cancel := context.WithTimeout(t.Context(), checkTimeout)
	defer cancel()
	const topic = "container.check"
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		t.Fatalf("create a topic: %v", err)
	}
	record := &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	fetches := client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatalf("read: %v", err)
	}
	got := fetches.Records()
	if len(got) != 1 || string(got[0].Value) != "v" || got[0].Offset != record.Offset {
		t.Errorf("read %v, want the one record at offset %d", got, record.Offset)
	}
}

func passesTheSuites(t *testing.T, brokers []string) {
	ctx, cancel := context.WithTimeout(t.Context(), suitesTimeout)
	defer cancel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatalf("find the main module: %v", err)
	}
	suites := strings.Fields(cmp.Or(os.Getenv("FOLDSTREAM_CONTAINER_SUITES"), suitesDefault))
	args := append([]string{"test", "-count=1", "-v", "-run", "/external"}, suites...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "FOLDSTREAM_TEST_BROKERS="+strings.Join(brokers, ","))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	// A name that matches nothing passes too.
	if !strings.Contains(string(out), "/external") {
		t.Errorf("no suite ran against the broker:\n%s", out)
	}
}
