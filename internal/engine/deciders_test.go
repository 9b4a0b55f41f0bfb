package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
)

// What a team's own code and the registry do to a partition, and what the state budget does.

func TestAPanicOfTheDeciderHoldsItsPartitionUntilItIsMended(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var broken atomic.Bool
		broken.Store(true)
		i := w.start(deciding(func(s account, c decider.Message) (decider.Decision, error) {
			if broken.Load() && c.Data.(deposit).Note == "hard" {
				panic("index out of range")
			}
			return accounts.Decide(s, c)
		})).serving(4)
		hard, behind := w.noted(w.streamOn(0, 0), 1, "hard"), w.deposit(w.streamOn(0, 0), 1)
		w.send(hard, behind)
		w.wantReady(i, "account.commands[0] is serving", "Decide panicked: index out of range", "account.Deposit")
		wantOutcome(t, w.ask(w.deposit(w.streamOn(1, 0), 1)), OutcomeAccepted, "")
		wantOutcome(t, w.ask(w.note(w.streamOn(0, 0), "n")), OutcomeAccepted, "")
		if got := valueOf(i.engine.metrics.blocked.WithLabelValues("account")); got < 1 {
			t.Errorf("waiting commands in the metrics: got %v, want some", got)
		}
		broken.Store(false)
		wantVersions(t, w.await(hard.id, 1)[0], 1, 1)
		wantVersions(t, w.await(behind.id, 1)[0], 2, 2)
		w.eventually("readiness", func() bool { return i.engine.Ready() == nil })
	})
}

func TestAPanicOfEvolveHoldsRecoveryUntilItIsMended(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start().serving(4)
		w.ask(w.deposit(w.streamOn(0, 0), 1))
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		var broken atomic.Bool
		broken.Store(true)
		i := w.start(func(c *Config) {
			spec := accounts
			spec.Evolve = func(s account, e decider.Message) account {
				if broken.Load() {
					panic("nil map")
				}
				return accounts.Evolve(s, e)
			}
			def := spec.Definition()
			c.Categories[0].Decider = &def
		})
		w.wantReady(i, "account.commands[0]", "Evolve panicked: nil map")
		i.serving(3)
		wantOutcome(t, w.ask(w.deposit(w.streamOn(1, 0), 0)), OutcomeAccepted, "")
		broken.Store(false)
		i.serving(4)
		wantVersions(t, w.ask(w.deposit(w.streamOn(0, 0), 1)), 2, 2)
	})
}

type stranger struct {
	Amount int64 `avro:"amount"`
}

func TestADecisionThatCannotBeAppendedHoldsThePartition(t *testing.T) {
	for name, c := range map[string]struct {
		events []any
		says   string
	}{
		"an event that is not among the types": {[]any{stranger{1}}, "not among the events of Types"},
		"a command":                            {[]any{deposit{Amount: 1}}, "not among the events of Types"},
		"more events than one batch takes":     {make([]any, appendEventsMax+1), "emitted 1001 events"},
	} {
		t.Run(name, func(t *testing.T) {
			w := onKfake(t)
			var broken atomic.Bool
			broken.Store(true)
			i := w.start(deciding(func(s account, m decider.Message) (decider.Decision, error) {
				if broken.Load() {
					return decider.Emit(c.events...)
				}
				return accounts.Decide(s, m)
			})).serving(4)
			r := w.deposit(w.streamOn(0, 0), 1)
			w.send(r)
			w.wantReady(i, c.says)
			broken.Store(false)
			wantOutcome(t, w.await(r.id, 1)[0], OutcomeAccepted, "")
		})
	}
}

// flakyRegistry is a registry that cannot be reached while it is down.
type flakyRegistry struct {
	codec.Reader
	down atomic.Bool
}

var errRegistryDown = errors.New("registry: connection refused")

func (r *flakyRegistry) ByID(ctx context.Context, id int32) (*codec.Registered, error) {
	if r.down.Load() {
		return nil, errRegistryDown
	}
	return r.Reader.ByID(ctx, id)
}

func TestARegistryThatIsAwayHoldsCommandsAndFailsNone(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		registry := &flakyRegistry{Reader: w.registry}
		i := w.start(func(c *Config) { c.Registry = registry }).serving(4)
		registry.down.Store(true)
		unknown, known := w.deposit(w.streamOn(0, 0), 1), w.deposit(w.streamOn(0, 0), 1)
		unknown.data, unknown.value = nil, confluent(4711, 2, 0)
		w.send(unknown, known)
		w.wantReady(i, "account.commands[0]", "connection refused")
		registry.down.Store(false)
		wantOutcome(t, w.await(unknown.id, 1)[0], OutcomeInvalid, CodeUnknownSchema)
		wantOutcome(t, w.await(known.id, 1)[0], OutcomeAccepted, "")
	})
}

func TestASpentStateBudgetRefusesNewStreamsOnly(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start(func(c *Config) { c.StateBytesMax = 4000 }).serving(4)
		old := w.streamOn(0, 0)
		wantOutcome(t, w.ask(w.deposit(old, 1)), OutcomeAccepted, "")
		refused := ""
		for n := 1; n < 100 && refused == ""; n++ {
			if reply := w.ask(w.deposit(w.streamOn(0, n), 1)); reply.Outcome != string(OutcomeAccepted) {
				wantOutcome(t, reply, OutcomeRejected, CodeCapacity)
				refused = w.streamOn(0, n)
			}
		}
		if refused == "" {
			t.Fatal("100 streams fit 4,000 bytes")
		}
		wantVersions(t, w.ask(w.deposit(old, 1)), 2, 2)
		if reply := w.ask(w.deposit(refused, 1)); !strings.Contains(reply.Message, "state_bytes_max") {
			t.Errorf("message: got %q, want it to name the setting", reply.Message)
		}
		if got := len(w.events("account")[refused]); got != 0 {
			t.Errorf("events of the refused stream: got %d, want 0", got)
		}
	})
}

func TestADecidersCategoryTakesAppendsWhereThatIsAllowed(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start(func(c *Config) { c.Categories[0].AllowAppends = true }).serving(4)
		r := w.deposit("s", 0)
		r.typ, r.data = "account.Deposited", deposited{Amount: 7}
		wantVersions(t, w.ask(r), 1, 1)
		wantOutcome(t, w.ask(w.deposit("s", -8)), OutcomeRejected, "overdrawn")
		wantVersions(t, w.ask(w.deposit("s", -7)), 2, 2) // the append is in the state
		if got := w.events("account")["s"][0].Type; got != "account.Deposited" {
			t.Errorf("type: got %q, want account.Deposited", got)
		}
	})
}

func TestAConfigNamesAllItsFaults(t *testing.T) {
	_, err := New(t.Context(), Config{SessionTimeout: 1, BatchBytesMax: 1, InFlightMax: -1, Categories: []Category{{Name: "a"}, {Name: "a"}}})
	for _, want := range []string{"Namespace", "Registry", "SessionTimeout", "HeartbeatInterval", "BatchBytesMax", "InFlightMax", "a stands twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
