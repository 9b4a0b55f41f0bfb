package doctor

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// differs is how the embedded broker departs from Apache Kafka, and which verdicts that gets.
var differs = map[string]Verdict{
	"before the claim":          Note,
	"renewal of the superseded": Warning,
	"renewal of the owner":      Note,
	"stamps":                    Note,
	"producers":                 Note,
	"heartbeat":                 Note,
}

func TestABrokerIsFitAndWhatDiffersIsSaid(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		cfg := configOf(testkit.Namespace(t), k.Seeds())
		report := examine(t, cfg)
		wantVerdict(t, report, Fit)
		expected := map[string]Verdict{"replication": Warning, "rights": Skipped}
		if k.Name == testkit.Kfake {
			maps.Copy(expected, differs)
		}
		for _, f := range report.Findings {
			verdict := Fit
			if v, there := expected[f.Step]; there {
				verdict = v
			}
			if f.Verdict != verdict {
				t.Errorf("step %q: got %s (%s), want %s", f.Step, f.Verdict, f.Saw, verdict)
			}
			if explained := f.Means != ""; f.Did == "" || f.Needs == "" || f.Saw == "" || explained != (f.Verdict != Fit && f.Verdict != Skipped) {
				t.Errorf("step %q does not tell its story: %+v", f.Step, f)
			}
		}
		const stepsMin = 25
		if len(report.Findings) < stepsMin {
			t.Errorf("got %d findings, want at least %d", len(report.Findings), stepsMin)
		}
		wantNothingLeft(t, cfg)
	})
}

// TestNothingElseIsWrittenTo looks at every topic and group of the namespace before and after.
func TestNothingElseIsWrittenTo(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		cfg := configOf(testkit.Namespace(t), k.Seeds())
		adm := kadm.NewClient(k.Client(t))
		plan, err := topics.MakePlan(t.Context(), adm, cfg.Layout.Specs())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := topics.Apply(t.Context(), adm, plan); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range cfg.Layout.Specs() {
			names = append(names, s.Name)
		}
		report := examine(t, cfg)
		wantVerdict(t, report, Fit)
		want(t, report, map[string]Verdict{"rights": Fit})
		ends, err := adm.ListEndOffsets(t.Context(), names...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
		ends.Each(func(o kadm.ListedOffset) {
			if o.Offset != 0 {
				t.Errorf("%s[%d] ends at %d, want it untouched", o.Topic, o.Partition, o.Offset)
			}
		})
		groups, err := adm.ListGroups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups.Groups() {
			if strings.HasPrefix(g, cfg.Layout.Namespace+".") {
				t.Errorf("group %s is there, want none", g)
			}
		}
		wantNothingLeft(t, cfg)
	})
}

// TestThreeReplicasAreFit has the partitions on different leaders, too.
func TestThreeReplicasAreFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		setting [2]string
		verdict Verdict
	}{
		{"as the project writes them", [2]string{}, Fit},
		{"unclean elections", [2]string{"unclean.leader.election.enable", "true"}, Unfit},
		{"one in sync", [2]string{"min.insync.replicas", "1"}, Unfit},
		{"all in sync", [2]string{"min.insync.replicas", "3"}, Warning},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster, cfg := liar(t, kfake.NumBrokers(3))
			cfg.Layout.ReplicationFactor = 3
			if c.setting[0] != "" {
				forceSetting(cluster, c.setting[0], c.setting[1])
			}
			report := examine(t, cfg)
			want(t, report, map[string]Verdict{"replication": c.verdict, "brokers": Fit, "log": Fit})
			wantNothingLeft(t, cfg)
		})
	}
}

// forceSetting makes the broker create every topic with a value of its own, as one whose operator
// overrides it.
func forceSetting(cluster *kfake.Cluster, key, value string) {
	cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
			for i := range topic.Configs {
				if topic.Configs[i].Name == key {
					topic.Configs[i].Value = &value
				}
			}
		}
		return nil, nil, false
	})
}

// TestCtrlCDeletesTheScratchTopic ends the context at the first batch.
func TestCtrlCDeletesTheScratchTopic(t *testing.T) {
	t.Parallel()
	cluster, cfg := liar(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted by a test")
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel(interrupted)
		return nil, nil, false
	})
	report, err := Run(ctx, cfg)
	if !errors.Is(err, interrupted) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if report.Topic == "" {
		t.Error("the report does not name the scratch topic")
	}
	want(t, report, map[string]Verdict{"scratch topic": Fit, "clean up": Fit})
	wantNothingLeft(t, cfg)
}

// TestASilentBrokerMeetsTheDeadline: produce requests get no answer at all.
func TestASilentBrokerMeetsTheDeadline(t *testing.T) {
	t.Parallel()
	cluster, cfg := liar(t)
	keep(cluster, kmsg.Produce, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	report, err := Run(ctx, cfg)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	want(t, report, map[string]Verdict{"scratch topic": Fit, "clean up": Fit})
	wantNothingLeft(t, cfg)
}

func TestASilentBrokerIsUnfitStepByStep(t *testing.T) {
	t.Parallel()
	cluster, cfg := liar(t)
	cfg.StepTimeout = 500 * time.Millisecond
	keep(cluster, kmsg.Produce, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
	report := examine(t, cfg)
	want(t, report, map[string]Verdict{"producer id": Unfit, "next epoch": Skipped, "writer": Unfit, "clean up": Fit})
}

func TestABrokerThatIsAwayIsSaidOnce(t *testing.T) {
	t.Parallel()
	cfg := configOf(testkit.Namespace(t), []string{"127.0.0.1:1"})
	cfg.StepTimeout = 300 * time.Millisecond
	cfg.Plan = func(context.Context) (topics.Plan, error) {
		t.Error("the plan was asked for")
		return topics.Plan{}, nil
	}
	cfg.Postgres = func(context.Context) (string, error) { return "18.1", nil }
	report := examine(t, cfg)
	wantVerdict(t, report, Unfit)
	want(t, report, map[string]Verdict{"brokers": Unfit, "versions": Skipped, "topics": Skipped, "postgres": Fit})
	if report.Topic != "" || len(report.Findings) != 4 {
		t.Errorf("got %d findings and topic %q, want four and no scratch topic", len(report.Findings), report.Topic)
	}
}

func TestATopicThatStaysIsNamed(t *testing.T) {
	t.Parallel()
	cluster, cfg := liar(t)
	cfg.CleanupTimeout = 300 * time.Millisecond
	keep(cluster, kmsg.DeleteTopics, func(req kmsg.Request) (kmsg.Response, error, bool) {
		return nil, errors.New("cut"), true
	})
	report := examine(t, cfg)
	f, _ := report.Find("clean up")
	if f.Verdict != Warning || !strings.Contains(f.Do, report.Topic) {
		t.Errorf("got %+v, want a warning that names %s", f, report.Topic)
	}
}

func TestAWrongConfigurationNamesAllFaults(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{StepTimeout: -1})
	for _, part := range []string{"Kafka is empty", "namespace", "StepTimeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
}
