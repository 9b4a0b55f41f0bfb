package testkit

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/devstack"
)

// EnvBrokers names the environment variable with the addresses of a broker
// that somebody else runs, host:port separated by commas.
const EnvBrokers = "FOLDSTREAM_TEST_BROKERS"

// Names of the brokers, as in Kafka.Name and in the names of subtests.
const (
	Kfake    = "kfake"
	JVM      = "jvm"
	External = "external"
)

// Kafka is a broker for tests.
type Kafka struct {
	Name string // Kfake, JVM or External

	seeds   []string
	cluster *kfake.Cluster
}

// Seeds are the addresses to bootstrap from.
func (k *Kafka) Seeds() []string { return append([]string(nil), k.seeds...) }

// Cluster is the embedded broker, or nil when this is another one. A shared
// cluster must not be given faults: other tests would meet them.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Client makes a client that is closed when the test ends.
func (k *Kafka) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	return newClient(t, k.seeds, opts...)
}

// CreateTopic creates a topic with one replica. Configs may be nil.
func (k *Kafka) CreateTopic(t testing.TB, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	createTopic(t, k.seeds, topic, partitions, configs)
}

// Kafkas lists every broker that the machine has, the embedded one first.
func Kafkas(t testing.TB) []*Kafka {
	t.Helper()
	all := []*Kafka{shared.kfake(t)}
	if testing.Short() {
		return all
	}
	if k := shared.jvm(t); k != nil {
		all = append(all, k)
	}
	if seeds := os.Getenv(EnvBrokers); seeds != "" {
		all = append(all, &Kafka{Name: External, seeds: strings.Split(seeds, ",")})
	}
	return all
}

// StartKfake starts a private embedded broker, in memory unless the options
// say otherwise. It has one node unless they do.
func StartKfake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append(kfakeOptions(), opts...)...)
	if err != nil {
		t.Fatalf("start the embedded broker: %v", err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

// kfakeOptions are those of a small broker that lets groups fail over quickly.
func kfakeOptions() []kfake.Opt {
	return []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1"}),
	}
}

// WrapKfake makes a private cluster look like the other brokers.
func WrapKfake(cluster *kfake.Cluster) *Kafka {
	return &Kafka{Name: Kfake, seeds: cluster.ListenAddrs(), cluster: cluster}
}

// JVMKafka is a private Apache Kafka for tests that hurt their broker. Its
// methods report faults by t.Errorf, so that any goroutine may call them.
type JVMKafka struct {
	*Kafka
	t   testing.TB
	jvm *devstack.JVM
}

// JVMOption changes the settings of a private broker.
type JVMOption func(*devstack.JVMConfig)

// WithProperty sets one line of server.properties, such as
// producer.id.expiration.ms.
func WithProperty(name, value string) JVMOption {
	return func(c *devstack.JVMConfig) { c.Properties[name] = value }
}

// ForCrashes shortens the session of the broker with its controller, without
// which a restart after a kill waits nine seconds and more.
func ForCrashes() JVMOption {
	return func(c *devstack.JVMConfig) {
		c.Properties["broker.session.timeout.ms"] = "1500"
		c.Properties["broker.heartbeat.interval.ms"] = "300"
	}
}

// WithHeapMB sets the largest heap in MiB; 512 by default.
func WithHeapMB(n int) JVMOption {
	return func(c *devstack.JVMConfig) { c.HeapMB = n }
}

// ForThroughput lets the JVM compile fully, which costs CPU during the first
// seconds: for benchmarks, not for functional tests.
func ForThroughput() JVMOption {
	return func(c *devstack.JVMConfig) { c.JavaFlags = nil }
}

// StartKafkaJVM starts a private Apache Kafka that ends with the test. Without
// Java on the machine the test is skipped, or fails by [EnvRequireAll].
func StartKafkaJVM(t testing.TB, opts ...JVMOption) *JVMKafka {
	t.Helper()
	cfg := jvmConfig(t.TempDir())
	for _, opt := range opts {
		opt(&cfg)
	}
	ctx, cancel := startContext()
	defer cancel()
	jvm, err := devstack.StartJVM(ctx, cfg)
	if errors.Is(err, devstack.ErrUnavailable) {
		shared.missing(t, JVM, err)
		t.Skipf("needs Apache Kafka: %v", err)
	}
	if err != nil {
		t.Fatalf("start Apache Kafka: %v", err)
	}
	k := &JVMKafka{Kafka: &Kafka{Name: JVM, seeds: jvm.Brokers()}, t: t, jvm: jvm}
	t.Cleanup(k.Stop)
	return k
}

func jvmConfig(dir string) devstack.JVMConfig {
	return devstack.JVMConfig{
		DataDir:    dir,
		Properties: map[string]string{"group.min.session.timeout.ms": "1000"},
		// The first compiler only: a test ends before the second one pays.
		JavaFlags: []string{"-XX:TieredStopAtLevel=1"},
	}
}

// Kill ends the broker by SIGKILL.
func (k *JVMKafka) Kill() { k.report("kill", k.jvm.Kill()) }

// Stop ends the broker cleanly, for good. Stopping twice is harmless.
func (k *JVMKafka) Stop() { k.report("stop", k.jvm.Stop()) }

// Restart starts a killed broker on its address, or stops a live one cleanly
// first. It returns once the broker answers.
func (k *JVMKafka) Restart() {
	ctx, cancel := startContext()
	defer cancel()
	k.report("restart", k.jvm.Restart(ctx))
}

// Pause stops the broker from running (SIGSTOP); its connections stay open.
func (k *JVMKafka) Pause() { k.report("pause", k.jvm.Pause()) }

// Resume lets a paused broker run on (SIGCONT).
func (k *JVMKafka) Resume() { k.report("resume", k.jvm.Resume()) }

// PID is the process id of the broker's current run.
func (k *JVMKafka) PID() int { return k.jvm.PID() }

func (k *JVMKafka) report(what string, err error) {
	k.t.Helper()
	if err != nil {
		k.t.Errorf("%s Apache Kafka: %v", what, err)
	}
}

func newClient(t testing.TB, seeds []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(seeds...)}, opts...)...)
	if err != nil {
		t.Fatalf("make a Kafka client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

func createTopic(t testing.TB, seeds []string, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	pointers := make(map[string]*string, len(configs))
	for name, value := range configs {
		pointers[name] = kadm.StringPtr(value)
	}
	_, err := kadm.NewClient(newClient(t, seeds)).CreateTopic(t.Context(), partitions, 1, pointers, topic)
	if err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}
