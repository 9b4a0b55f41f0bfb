package devstack

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestJVMKeepsRecordsThroughKillAndRestart(t *testing.T) {
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
	j, err := StartJVM(t.Context(), JVMConfig{DataDir: dir, Properties: map[string]string{
		"broker.session.timeout.ms": "1500", "broker.heartbeat.interval.ms": "300",
	}})
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
	client := newClient(t, brokers)
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
