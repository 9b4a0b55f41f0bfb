package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// submission is a deposit in memory.
func (w *world) submission(stream string, amount int64) Submission {
	w.t.Helper()
	value, err := w.bindings["account.Deposit"].Append(nil, deposit{Amount: amount})
	if err != nil {
		w.t.Fatal(err)
	}
	return Submission{Category: "account", StreamID: stream, Value: value,
		Request: event.Request{ID: uuid.NewString(), Type: "account.Deposit", Time: time.Now()}}
}

func (i *instance) submit(s Submission) Outcome {
	i.w.t.Helper()
	o, err := i.engine.Submit(i.w.t.Context(), s)
	if err != nil {
		i.w.t.Fatalf("Submit: %v", err)
	}
	return o
}

func TestSubmittedRequestsHaveTheSameOutcomes(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start(saveAtOnce).serving(4)
		first := w.submission("a", 10)
		accepted := i.submit(first)
		if accepted.Kind != OutcomeAccepted || accepted.First != 1 || accepted.Last != 1 || accepted.Offset < 0 {
			t.Errorf("first: got %+v", accepted)
		}
		again := i.submit(first)
		if again.Kind != OutcomeDuplicate || again.First != 1 || again.Offset != accepted.Offset {
			t.Errorf("again: got %+v, want a duplicate of %+v", again, accepted)
		}
		conflict := w.submission("a", 1)
		conflict.Request.Expected = event.ExpectedNone
		if o := i.submit(conflict); o.Kind != OutcomeConflict || o.Actual != 1 {
			t.Errorf("conflict: got %+v", o)
		}
		if o := i.submit(w.submission("a", -11)); o.Kind != OutcomeRejected || o.Code != "overdrawn" {
			t.Errorf("rejected: got %+v", o)
		}
		bad := w.submission("a", 1)
		bad.Value = []byte{9}
		if o := i.submit(bad); o.Kind != OutcomeInvalid || o.Code != CodeFrame {
			t.Errorf("invalid: got %+v", o)
		}
		// A record of the commands topic sees what was submitted, and the other way round.
		wantVersions(t, w.ask(w.deposit("a", 5)), 2, 2)
		if o := i.submit(w.submission("a", -15)); o.Kind != OutcomeAccepted || o.First != 3 {
			t.Errorf("after the record: got %+v", o)
		}
		for _, e := range w.events("account")["a"] {
			if direct := e.Version != 2; direct != (e.CommandOffset < 0) {
				t.Errorf("version %d names command offset %d", e.Version, e.CommandOffset)
			}
		}
		w.covered("account", "a")
		i.stop()
		next := w.start().serving(4)
		if o := next.submit(first); o.Kind != OutcomeDuplicate || o.Offset != accepted.Offset {
			t.Errorf("after a restart: got %+v, want a duplicate", o)
		}
	})
}

func TestSubmitSaysWhoDoesNotOwn(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	i := w.start().serving(4)
	i.stop()
	if _, err := i.engine.Submit(t.Context(), w.submission("a", 1)); !errors.Is(err, ErrNotOwner) {
		t.Errorf("stopped: got %v, want ErrNotOwner", err)
	}
	s := w.submission("a", 1)
	s.Category = "nobodys"
	if _, err := i.engine.Submit(t.Context(), s); err == nil {
		t.Error("an unknown category is taken")
	}
}

// A flood on one stream holds up only itself: others are answered between its requests, and its
// excess is refused at once.
func TestAHotStreamDoesNotStarveTheOthers(t *testing.T) {
	w := newWorld(t, testkit.Kafkas(t)[0])
	l := newLink()
	i := w.start(linked(l)).serving(4)
	hot, cold := w.streamOn(0, 0), w.streamOn(0, 1)
	l.hold() // nothing is acknowledged while the flood comes in
	var mu sync.Mutex
	var order []string
	var busy int
	var wg sync.WaitGroup
	flood := 2 * submissionsStreamMax
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	submit := func(stream string, s Submission) {
		wg.Go(func() {
			_, err := i.engine.Submit(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, ErrBusy):
				busy++
			case err != nil:
				t.Errorf("%s: %v", stream, err)
			default:
				order = append(order, stream)
			}
		})
	}
	for range flood + 4096 {
		submit("hot", w.submission(hot, 1))
	}
	w.eventually("the flood is at its limits", func() bool { mu.Lock(); defer mu.Unlock(); return busy > 0 })
	submit("cold", w.submission(cold, 1))
	l.release()
	wg.Wait()
	at := -1
	for n, s := range order {
		if s == "cold" {
			at = n
		}
	}
	if at < 0 || at == len(order)-1 {
		t.Errorf("the other stream's request was answered as number %d of %d", at, len(order))
	}
	if busy == 0 {
		t.Error("no request of the flood was refused")
	}
}

func TestFairQueueKeepsStreamOrderAndTakesTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q fairQueue
		next := map[string]int64{}
		popped := map[string]int64{}
		waiting := map[string]int{}
		lastTurn := map[string]int{}
		turn := 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				id := fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "stream"))
				c := &command{record: &kgo.Record{Key: []byte(id), LeaderEpoch: int32(next[id])}}
				next[id]++
				if waiting[id] == 0 {
					lastTurn[id] = turn
				}
				waiting[id]++
				q.push(id, c)
				continue
			}
			peeked := q.peek()
			c := q.pop()
			if c != peeked {
				t.Fatal("pop took another one than peek showed")
			}
			if c == nil {
				continue
			}
			turn++
			id := string(c.record.Key)
			if c.record.LeaderEpoch != int32(popped[id]) {
				t.Fatalf("stream %s: got request %d, want %d", id, c.record.LeaderEpoch, popped[id])
			}
			popped[id]++
			waiting[id]--
			if waited := turn - lastTurn[id]; waited > 5 {
				t.Fatalf("stream %s waited %d turns among 5 streams", id, waited)
			}
			lastTurn[id] = turn
		}
	})
}
