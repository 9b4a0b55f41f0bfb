package topics_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

// onBrokers runs a test on every broker there is, each with a namespace of its own.
func onBrokers(t *testing.T, test func(t *testing.T, adm *kadm.Client, l topics.Layout)) {
	t.Helper()
	brokers := testkit.Kafkas(t)
	three := testkit.WrapKfake(testkit.StartKfake(t, kfake.NumBrokers(3)))
	three.Name = "kfake of three"
	for _, k := range append(brokers, three) {
		t.Run(k.Name, func(t *testing.T) {
			l := layout()
			l.Namespace = testkit.Namespace(t)
			l.DefaultPartitions = 2
			l.Categories[1].Partitions = 3
			test(t, kadm.NewClient(k.Client(t)), l)
		})
	}
}

func mustPlan(t *testing.T, adm *kadm.Client, specs []topics.Spec) topics.Plan {
	t.Helper()
	plan, err := topics.MakePlan(t.Context(), adm, specs)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func mustApply(t *testing.T, adm *kadm.Client, specs []topics.Spec) topics.Applied {
	t.Helper()
	applied, err := topics.Apply(t.Context(), adm, mustPlan(t, adm, specs))
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func TestApplyCreatesAllAndThenNothingDiffers(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		specs := l.Specs()
		first := mustPlan(t, adm, specs)
		if first.Empty() || len(first.Changes) != len(specs) {
			t.Fatalf("first plan: got %v, want one creation per topic (%d)", first.Changes, len(specs))
		}
		applied, err := topics.Apply(t.Context(), adm, first)
		if err != nil {
			t.Fatal(err)
		}
		if len(applied.Created) != len(specs) || len(applied.Configured) != 0 {
			t.Errorf("got %d created and %v configured, want %d and none", len(applied.Created), applied.Configured, len(specs))
		}
		second := mustPlan(t, adm, specs)
		if !second.Empty() {
			t.Errorf("second plan is not empty: %v", second.Changes)
		}
		for _, c := range second.Changes {
			if c.Kind != topics.KindNone {
				t.Errorf("second plan: %s, want ok", c)
			}
		}
	})
}

func TestApplyCorrectsSettings(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		mustApply(t, adm, l.Specs())
		events := topics.Events(l.Namespace, "invoice")
		alter := []kadm.AlterConfig{
			{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("1000")},
			{Op: kadm.SetConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")},
		}
		if rs, err := adm.AlterTopicConfigs(t.Context(), alter, events); err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
		plan := mustPlan(t, adm, l.Specs())
		if plan.Empty() {
			t.Fatal("the plan does not see the changed settings")
		}
		applied, err := topics.Apply(t.Context(), adm, plan)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range applied.Configured {
			got = append(got, c.String())
		}
		want := []string{events + ": set cleanup.policy to delete (is compact)", events + ": set retention.ms to -1 (is 1000)"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if again := mustPlan(t, adm, l.Specs()); !again.Empty() {
			t.Errorf("after the correction the plan is not empty: %v", again.Changes)
		}
	})
}

func TestApplyRefusesAnotherPartitionCount(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		mustApply(t, adm, l.Specs())
		l.Categories[0].Partitions = 5
		l.Categories = append(l.Categories, topics.Category{Name: "added", Mode: topics.ModeAppend})
		plan := mustPlan(t, adm, l.Specs())
		if got := len(plan.Refusals()); got != 3 || plan.Empty() {
			t.Fatalf("got %d refusals, want 3 (commands, events, snapshots)", got)
		}
		applied, err := topics.Apply(t.Context(), adm, plan)
		var refused *topics.PartitionsError
		if !errors.As(err, &refused) {
			t.Fatalf("got %v, want a *PartitionsError", err)
		}
		if refused.Topic != topics.Commands(l.Namespace, "invoice") || refused.Have != "2" || refused.Want != "5" {
			t.Errorf("got %+v, want the commands topic with 2, not 5", refused)
		}
		if !strings.Contains(err.Error(), "set partitions to 2 in the project") {
			t.Errorf("%q names no remedy", err)
		}
		if len(applied.Created) != 0 {
			t.Errorf("created %v although the plan was refused", applied.Created)
		}
	})
}

func TestApplyTwiceAtOnceIsFine(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		plan := mustPlan(t, adm, l.Specs())
		var group sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			group.Go(func() { _, errs[i] = topics.Apply(t.Context(), adm, plan) })
		}
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if again := mustPlan(t, adm, l.Specs()); !again.Empty() {
			t.Errorf("the plan is not empty: %v", again.Changes)
		}
	})
}

// A topic that somebody created meanwhile with another partition count is no success.
func TestApplyNoticesAForeignTopicThatCameMeanwhile(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		plan := mustPlan(t, adm, l.Specs())
		if _, err := adm.CreateTopic(t.Context(), 7, -1, nil, topics.Events(l.Namespace, "order")); err != nil {
			t.Fatal(err)
		}
		_, err := topics.Apply(t.Context(), adm, plan)
		var refused *topics.PartitionsError
		if !errors.As(err, &refused) || refused.Have != "7" {
			t.Errorf("got %v, want a *PartitionsError with 7 partitions", err)
		}
	})
}

// Brokers do not all show all settings; what cannot be compared is told and does not make the
// plan differ for ever.
func TestSettingsThatTheBrokerDoesNotShowAreSkipped(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		mustApply(t, adm, l.Specs())
		specs := l.Specs()
		specs[0].Configs["no.such.setting"] = "1"
		plan := mustPlan(t, adm, specs)
		if !plan.Empty() {
			t.Errorf("the plan is not empty: %v", plan.Changes)
		}
		skipped := plan.Skipped()
		if len(skipped) != 1 || skipped[0].Key != "no.such.setting" || !strings.Contains(skipped[0].String(), "skipped") {
			t.Errorf("got skipped %v, want no.such.setting", skipped)
		}
	})
}

func TestIDsNamesMissingTopicsAndTheRemedy(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		mustApply(t, adm, l.Specs())
		events, commands := topics.Events(l.Namespace, "order"), topics.Commands(l.Namespace, "order")
		infos, err := topics.IDs(t.Context(), adm, events, commands)
		if err != nil {
			t.Fatal(err)
		}
		if infos[events].ID == infos[commands].ID || infos[events].ID == ([16]byte{}) {
			t.Errorf("topic ids %x and %x: want two different ones", infos[events].ID, infos[commands].ID)
		}
		if got := infos[events]; got.Partitions != 3 || got.ReplicationFactor < 1 {
			t.Errorf("got %+v, want 3 partitions and some replicas", got)
		}
		_, err = topics.IDs(t.Context(), adm, events, l.Namespace+".b", l.Namespace+".a")
		var missing *topics.MissingError
		if !errors.As(err, &missing) || !slices.Equal(missing.Topics, []string{l.Namespace + ".a", l.Namespace + ".b"}) {
			t.Fatalf("got %v, want a *MissingError of a and b", err)
		}
		if !strings.Contains(err.Error(), "foldstream topics apply") {
			t.Errorf("%q does not name the command that helps", err)
		}
	})
}

// min.insync.replicas hangs on the replicas where the broker's default factor is used.
func TestMinInsyncReplicasFollowsTheBrokersReplicas(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, adm *kadm.Client, l topics.Layout) {
		mustApply(t, adm, l.Specs())
		events := topics.Events(l.Namespace, "order")
		infos, err := topics.IDs(t.Context(), adm, events)
		if err != nil {
			t.Fatal(err)
		}
		want := "1"
		if infos[events].ReplicationFactor >= 3 {
			want = "2"
		}
		configs, err := adm.DescribeTopicConfigs(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range configs[0].Configs {
			if c.Key == "min.insync.replicas" && c.MaybeValue() != want {
				t.Errorf("got min.insync.replicas %s with %d replicas, want %s", c.MaybeValue(), infos[events].ReplicationFactor, want)
			}
		}
	})
}

func TestMakePlanEndsWithTheContext(t *testing.T) {
	t.Parallel()
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := topics.MakePlan(ctx, kadm.NewClient(client), layout().Specs()); err == nil {
		t.Error("got a plan without a broker")
	}
}
