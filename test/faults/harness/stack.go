package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

var categories = []string{project.Account, project.Log}

// sessionTimeout of the services: short, since every kill of the only member costs one.
const sessionTimeout = 1500 * time.Millisecond

// Host is what the runs of one invocation share: folders, the database server, built binaries.
type Host struct {
	Dir  string // everything is below it
	Keep bool   // leave logs and data where they are
	Log  *slog.Logger

	mu       sync.Mutex
	postgres *devstack.Postgres
	binaries map[bool]string // without and with planted bugs
}

// NewHost prepares a folder. Close stops what was started.
func NewHost(log *slog.Logger) (*Host, error) {
	dir, err := os.MkdirTemp("", "foldstream-faults-")
	if err != nil {
		return nil, err
	}
	// Postgres does not run as root; who it runs as must be able to pass.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	return &Host{Dir: dir, Log: log, binaries: map[bool]string{}}, nil
}

// Close stops the database and removes the folder.
func (h *Host) Close() error {
	var err error
	if h.postgres != nil {
		err = h.postgres.Stop()
	}
	if h.Keep {
		return err
	}
	return errors.Join(err, os.RemoveAll(h.Dir))
}

// Binary builds the services, without or with bugs that can be planted, once each.
func (h *Host) Binary(ctx context.Context, planted bool) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if path := h.binaries[planted]; path != "" {
		return path, nil
	}
	path, tags := filepath.Join(h.Dir, "service"), ""
	if planted {
		path, tags = path+"-planted", "planted"
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", path, "github.com/foldstream/foldstream/test/faults/service")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the services with tags %q: %w\n%s", tags, err, out)
	}
	h.binaries[planted] = path
	return path, nil
}

// database makes an empty database and returns its DSN.
func (h *Host) database(ctx context.Context, name string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.postgres == nil {
		pg, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: filepath.Join(h.Dir, "postgres")})
		if err != nil {
			return "", err
		}
		h.postgres = pg
	}
	conn, err := pgx.Connect(ctx, h.postgres.DSN())
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return "", err
	}
	return strings.Replace(h.postgres.DSN(), "/postgres?", "/"+name+"?", 1), nil
}

// broker is what the services speak to.
type broker struct {
	kind  string
	jvm   *devstack.JVM
	fake  *kfake.Cluster
	addrs []string // for the harness
	// front is where the services connect: the broker, or a proxy before it.
	front []string
	proxy *proxy
}

func (b *broker) seeds() []string { return b.addrs }

func (b *broker) stop() error {
	var err error
	if b.proxy != nil {
		b.proxy.stop()
	}
	if b.fake != nil {
		b.fake.Close()
	}
	if b.jvm != nil {
		err = b.jvm.Stop()
	}
	return err
}

// Names of brokers.
const (
	brokerJVM  = "jvm"
	brokerFake = "kfake"
)

// jvmHeapMB is enough for a run, and leaves room for the rest on a small machine.
const jvmHeapMB = 384

// startJVM starts an Apache Kafka for one run. With proxied, it has a second listener whose
// advertised address is a proxy's, so that every connection of the services passes it.
func startJVM(ctx context.Context, dir string, properties map[string]string, proxied bool) (*broker, error) {
	cfg := devstack.JVMConfig{DataDir: dir, HeapMB: jvmHeapMB, JavaFlags: []string{"-XX:TieredStopAtLevel=1"}, Properties: map[string]string{
		"group.min.session.timeout.ms": "1000",
		// Without these a restart after a kill waits for the broker's old session.
		"broker.session.timeout.ms": "1500", "broker.heartbeat.interval.ms": "300",
	}}
	for name, value := range properties {
		cfg.Properties[name] = value
	}
	b := &broker{kind: brokerJVM}
	if proxied {
		p, err := newProxy(&cfg)
		if err != nil {
			return nil, err
		}
		b.proxy, b.front = p, []string{p.listen}
	}
	jvm, err := devstack.StartJVM(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, b.stop())
	}
	b.jvm, b.addrs = jvm, jvm.Brokers()
	if !proxied {
		b.front = b.addrs
	}
	return b, nil
}

const fakeRebalanceMillis = 4000

func startFake(properties map[string]string, nodes int) (*broker, error) {
	configs := map[string]string{"log.retention.ms": "-1"}
	for name, value := range properties {
		configs[name] = value
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(nodes), kfake.GroupMinSessionTimeout(time.Second), kfake.BrokerConfigs(configs), kfake.SleepOutOfOrder())
	if err != nil {
		return nil, err
	}
	// This broker waits the whole rebalance time-out for a member that died while it joined; a real
	// one goes by the session time-out. The clients' default, a minute, would hide everything else.
	// See stage.untilStable as well.
	cluster.ControlKey(int16(kmsg.JoinGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
		join := request.(*kmsg.JoinGroupRequest)
		join.RebalanceTimeoutMillis = min(join.RebalanceTimeoutMillis, fakeRebalanceMillis)
		return nil, nil, false
	})
	b := &broker{kind: brokerFake, fake: cluster, addrs: cluster.ListenAddrs()}
	b.front = b.addrs
	return b, nil
}

// stack is one run's broker, database and processes.
type stack struct {
	host   *Host
	run    *Run
	began  time.Time
	dir    string
	log    *slog.Logger
	binary string
	broker *broker
	dsn    string
	pool   *pgxpool.Pool // nil without views
	client *kgo.Client   // of the harness, past any proxy
	admin  *kadm.Client

	mu       sync.Mutex
	services []*service
	notes    []string
}

func (st *stack) now() time.Duration { return time.Since(st.began) }

// note records what only the runner can see to be wrong.
func (st *stack) note(format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.notes = append(st.notes, fmt.Sprintf(format, args...))
}

// environment configures the children. Nothing of the caller's own configuration gets through.
func (st *stack) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "FOLDSTREAM_") || strings.HasPrefix(v, "PG")
	})
	env = append(env,
		"FOLDSTREAM_KAFKA_BROKERS="+strings.Join(st.broker.front, ","),
		"FOLDSTREAM_NAMESPACE="+st.run.Namespace,
		"FOLDSTREAM_HTTP_ADDR=127.0.0.1:0",
		"FOLDSTREAM_LOG_FORMAT=json",
		"FOLDSTREAM_INGEST_SESSION_TIMEOUT="+sessionTimeout.String(),
		"FOLDSTREAM_PROJECTOR_SESSION_TIMEOUT="+sessionTimeout.String(),
	)
	if st.dsn != "" {
		env = append(env, "FOLDSTREAM_POSTGRES_DSN="+st.dsn)
	}
	if st.run.Planted != "" {
		env = append(env, "FOLDSTREAM_PLANTED="+st.run.Planted)
	}
	return env
}

// open prepares the run as an operator would: topics, then schemas.
func (st *stack) open(ctx context.Context) error {
	var err error
	if st.client, err = kgo.NewClient(kgo.SeedBrokers(st.broker.seeds()...), kgo.MetadataMinAge(100*time.Millisecond)); err != nil {
		return err
	}
	st.admin = kadm.NewClient(st.client)
	if st.dsn != "" {
		if st.pool, err = pgxpool.New(ctx, st.dsn+"&application_name="+harnessName); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"topics", "apply", "--execute", "--yes"}, {"schema", "register"}} {
		cmd := exec.CommandContext(ctx, st.binary, args...)
		cmd.Env = append(st.environment(), "FOLDSTREAM_KAFKA_BROKERS="+strings.Join(st.broker.seeds(), ","))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// apart has one node of an embedded broker lead all events partitions, and the other all snapshots:
// an instance has one request under way to a node, so that snapshots would be held with the events
// else.
func (st *stack) apart() error {
	for p := range st.run.Partitions {
		for node, names := range [][]string{st.eventsTopics(), st.topicsOf(topics.Snapshots)} {
			for _, name := range names {
				if st.broker.fake.LeaderFor(name, p) == int32(node) {
					continue
				}
				if err := st.broker.fake.MoveTopicPartition(name, p, int32(node)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// add makes a service of the run; start starts it.
func (st *stack) add(name string, args ...string) *service {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := &service{name: name, args: args, st: st}
	st.services = append(st.services, s)
	return s
}

// named lists the services whose name begins so.
func (st *stack) named(prefix string) []*service {
	st.mu.Lock()
	defer st.mu.Unlock()
	var all []*service
	for _, s := range st.services {
		if strings.HasPrefix(s.name, prefix) {
			all = append(all, s)
		}
	}
	return all
}

// close ends everything of the run.
func (st *stack) close() error {
	var faults []error
	for _, s := range st.named("") {
		faults = append(faults, s.kill())
	}
	if st.pool != nil {
		st.pool.Close()
	}
	if st.client != nil {
		st.client.Close()
	}
	return errors.Join(append(faults, st.broker.stop())...)
}

// untilServed waits until the ingests serve all partitions.
func (st *stack) untilServed(ctx context.Context) error {
	want := len(categories) * int(st.run.Partitions)
	return poll(ctx, 20*time.Millisecond, fmt.Sprintf("%d partitions served", want), func() (bool, error) {
		n := 0
		for _, s := range st.named("ingest") {
			n += s.serving(ctx)
		}
		return n >= want, nil
	})
}

// poll asks again and again: other processes send no signal to this one.
func poll(ctx context.Context, every time.Duration, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, context.Cause(ctx))
		}
	}
}

func (st *stack) topicsOf(name func(ns, category string) string) []string {
	var all []string
	for _, c := range categories {
		all = append(all, name(st.run.Namespace, c))
	}
	return all
}

func (st *stack) eventsTopics() []string   { return st.topicsOf(topics.Events) }
func (st *stack) commandsTopics() []string { return st.topicsOf(topics.Commands) }
