package doctor

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

// deadline bounds every examination of a test; one that meets it fails.
const deadline = time.Minute

// onEach runs one test on every broker.
func onEach(t *testing.T, test func(t *testing.T, k *testkit.Kafka)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// configOf examines a broker for a namespace of one category.
func configOf(namespace string, seeds []string, opts ...kgo.Opt) Config {
	return Config{
		Kafka:   append([]kgo.Opt{kgo.SeedBrokers(seeds...)}, opts...),
		Layout:  topics.Layout{Namespace: namespace, ReplicationFactor: 1, Categories: []topics.Category{{Name: "order", Mode: topics.ModeAppend, Partitions: 1}}},
		Fencing: true, StepTimeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
}

func examine(t *testing.T, cfg Config) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	report, err := Run(ctx, cfg)
	if err != nil {
		t.Fatalf("Run: %v\n%v", err, report.Findings)
	}
	return report
}

// liar starts an embedded broker that may be made to lie. Its examination has few seconds for a
// step: some lies look like silence.
func liar(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, Config) {
	t.Helper()
	cluster := testkit.StartKfake(t, opts...)
	cfg := configOf(testkit.Namespace(t), cluster.ListenAddrs())
	cfg.StepTimeout = 3 * time.Second
	return cluster, cfg
}

// want holds the verdicts of some steps against a report.
func want(t *testing.T, r Report, verdicts map[string]Verdict) {
	t.Helper()
	for name, verdict := range verdicts {
		f, there := r.Find(name)
		if !there || f.Verdict != verdict {
			t.Errorf("step %q: got %q (%s), want %q", name, f.Verdict, f.Saw, verdict)
		}
	}
}

// wantNothingLeft fails when a scratch topic of the configuration's namespace is still there.
func wantNothingLeft(t *testing.T, cfg Config) {
	t.Helper()
	client, err := kgo.NewClient(cfg.Kafka...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	testkit.Await(t, "the scratch topic is gone", 10*time.Second, func(ctx context.Context) bool {
		all, err := kadm.NewClient(client).ListTopics(kadm.WithAuthorizedOps(ctx))
		return err == nil && !slices.ContainsFunc(all.Names(), func(name string) bool { return strings.HasPrefix(name, cfg.Layout.Namespace+".doctor-") })
	})
}

func wantVerdict(t *testing.T, r Report, verdict Verdict) {
	t.Helper()
	if got := r.Verdict(); got != verdict {
		t.Errorf("verdict: got %s, want %s; unfit: %v, denied: %v", got, verdict, r.Named(Unfit), r.Named(Denied))
	}
}
