package projector

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// onePartition puts all events of the probe into one partition, in order.
func onePartition(t *testing.T, views []projection.View, test func(w *world)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(newWorldOf(t, k, testkit.Postgreses(t)[0], views, 1))
		})
	}
}

func (w *world) totals(view string) string {
	w.t.Helper()
	return strings.Join(lines(w.t, w.pool, `select format('%s=%s', id, total) from `+quote(w.ns, view)+` order by id`), " ")
}

func (w *world) next(consumer string) int64 {
	w.t.Helper()
	return scan[int64](w.t, w.pool, `select max(next_offset) from `+quote(w.ns, "offsets")+` where consumer = $1`, consumer)
}

func TestAPausedViewStaysWhereItIsAndStepsOneEvent(t *testing.T) {
	onePartition(t, []projection.View{plainList()}, func(w *world) {
		p := w.run()
		w.write(w.noted("a", "x", 1))
		w.caughtUp()
		o := w.operator()
		if _, err := o.Step(w.t.Context(), "plain_list", 0, "", -1); !errors.Is(err, ErrNotPaused) {
			w.t.Errorf("step of a view that runs: got %v, want ErrNotPaused", err)
		}
		if err := o.Pause(w.t.Context(), "plain_list", 0, "to look"); err != nil {
			w.t.Fatal(err)
		}
		w.write(w.noted("a", "x", 10), w.noted("b", "x", 100), w.noted("a", "x", 1000))
		status, err := o.List(w.t.Context(), "plain_list")
		if err != nil || len(status) != 1 || !status[0].Paused || status[0].Reason != "to look" || status[0].Behind != 3 || !status[0].Live {
			w.t.Errorf("list: got %+v and %v, want one live version, paused, 3 behind", status, err)
		}
		time.Sleep(4 * controlInterval) // nothing is to happen
		if got := w.totals("plain_list"); got != "a=1" {
			w.t.Errorf("paused: got %s, want a=1", got)
		}
		if err := p.Ready(); err != nil {
			w.t.Errorf("ready while an operator has paused it: got %v, want nil", err)
		}
		step, err := o.Step(w.t.Context(), "plain_list", 0, "", -1)
		if err != nil || step.Stream != "a" || step.Version != 2 || step.Offset != 1 || step.Outcome != "applied" {
			w.t.Errorf("step: got %+v and %v, want the event at offset 1 applied", step, err)
		}
		if got := w.totals("plain_list"); got != "a=11" {
			w.t.Errorf("after a step: got %s, want a=11", got)
		}
		if err := o.Resume(w.t.Context(), "plain_list", 0); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp()
		if got := w.totals("plain_list"); got != "a=1011 b=100" {
			w.t.Errorf("resumed: got %s, want a=1011 b=100", got)
		}
		if got := len(w.logOf(topics.Audit(w.ns))); got != 3 {
			w.t.Errorf("audit: got %d records, want those of pause, step and resume", got)
		}
	})
}

// poisoned is plainList with a handler that misbehaves by the text.
func poisoned() projection.View {
	v := probeList()
	v.Name = "plain_list"
	return v
}

func TestASkipLeavesOneEventOutAndARebuildHonoursIt(t *testing.T) {
	onePartition(t, []projection.View{poisoned(), second(poisoned())}, func(w *world) {
		w.kafka.CreateTopic(w.t, topics.Corrections(w.ns), 1, map[string]string{"cleanup.policy": "compact"})
		w.run()
		w.write(w.noted("a", "one", 1), w.noted("a", "error", 2), w.noted("b", "one", 1), w.noted("a", "three", 4), w.noted("a", "panic", 8), w.noted("a", "five", 16))
		w.caughtUp()
		o := w.operator()
		skip := func(version int, offset int64, execute bool) (SkipReport, error) {
			return o.Skip(w.t.Context(), SkipRequest{Name: "plain_list", Version: version, Place: Place{Offset: offset}, Reason: "bad data", Execute: execute})
		}
		if _, err := skip(1, 0, true); !errors.Is(err, ErrApplied) {
			w.t.Errorf("skip an applied event: got %v, want ErrApplied", err)
		}
		shown, err := skip(1, 1, false)
		if err != nil || !shown.Letter || shown.Correction.Stream != "a" || shown.Correction.Version != 2 {
			w.t.Errorf("skip, shown: got %+v and %v, want the letter a@2", shown, err)
		}
		if got := w.totals("plain_list"); got != "a=1 b=1" {
			w.t.Errorf("shown only: got %s", got)
		}
		done, err := skip(1, 1, true)
		if err != nil || done.Applied != 2 || done.Waiting != 2 {
			w.t.Errorf("skip: got %+v and %v, want 2 letters resolved and 2 that wait for the next failure", done, err)
		}
		if got := w.totals("plain_list"); got != "a=5 b=1" {
			w.t.Errorf("after the first skip: got %s, want a=5 b=1", got)
		}
		letters := lines(w.t, w.pool, `select format('%s %s %s', "offset", reason, class) from `+quote(w.ns, "letters")+` where consumer = 'view.plain_list.v1' order by "offset"`)
		wantLines(w.t, "letters", letters, "4 failed panic", "5 blocked-by-key blocked-by-key")
		if done, err = skip(1, 4, true); err != nil || done.Applied != 2 || done.Waiting != 0 {
			w.t.Errorf("skip: got %+v and %v, want the stream free", done, err)
		}
		w.write(w.noted("a", "six", 32))
		w.applied(w.views[0], topics.Events(w.ns, "probe"))
		if got := w.totals("plain_list"); got != "a=53 b=1" {
			w.t.Errorf("after both: got %s, want a=53 b=1", got)
		}
		// The letters of the other version are its own, and are still there.
		if got := scan[int](w.t, w.pool, `select count(*)::int from `+quote(w.ns, "letters")+` where consumer = 'view.plain_list.v2'`); got != 5 {
			w.t.Errorf("letters of the shadow: got %d, want 5", got)
		}
		// On record for both versions, the table lost: a rebuild of the other one has it from the topic.
		for _, offset := range []int64{1, 4} {
			if _, err := skip(2, offset, true); err != nil {
				w.t.Fatal(err)
			}
		}
		if _, err := w.pool.Exec(w.t.Context(), `delete from `+quote(w.ns, "corrections")); err != nil {
			w.t.Fatal(err)
		}
		if _, err := o.Rebuild(w.t.Context(), RebuildRequest{Name: "plain_list", FromStart: true}); err != nil {
			w.t.Fatal(err)
		}
		if r := w.mustVerify(o, "plain_list"); !r.Equal || r.RowsTo != 2 || len(r.Parked) != 0 {
			w.t.Errorf("verify: got %+v, want the rebuild to leave out what was skipped", r)
		}
	})
}

func TestASkipAheadIsObeyedWhenTheEventComes(t *testing.T) {
	onePartition(t, []projection.View{poisoned()}, func(w *world) {
		w.kafka.CreateTopic(w.t, topics.Corrections(w.ns), 1, map[string]string{"cleanup.policy": "compact"})
		w.run()
		w.write(w.noted("a", "one", 1))
		w.caughtUp()
		o := w.operator()
		if err := o.Pause(w.t.Context(), "plain_list", 0, ""); err != nil {
			w.t.Fatal(err)
		}
		w.write(w.noted("a", "error", 2), w.noted("a", "three", 4))
		if _, err := o.Skip(w.t.Context(), SkipRequest{Name: "plain_list", Place: Place{Offset: 1}, Reason: "bad", Execute: true}); err != nil {
			w.t.Fatal(err)
		}
		if err := o.Resume(w.t.Context(), "plain_list", 0); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp()
		if got := w.totals("plain_list"); got != "a=5" {
			w.t.Errorf("got %s, want a=5: the event in the middle left out, no letter", got)
		}
	})
}

func TestThePositionIsSetAndNothingCountsTwice(t *testing.T) {
	onePartition(t, []projection.View{plainList()}, func(w *world) {
		w.run()
		w.write(w.noted("a", "x", 1), w.noted("b", "x", 2), w.noted("a", "x", 4))
		w.caughtUp()
		o := w.operator()
		shown, err := o.SetPosition(w.t.Context(), "plain_list", 0, Place{Offset: 1}, false)
		if err != nil || shown.Before != 3 || w.next("view.plain_list.v1") != 3 {
			w.t.Errorf("shown: got %+v, %v, and offset %d", shown, err, w.next("view.plain_list.v1"))
		}
		if _, err := o.SetPosition(w.t.Context(), "plain_list", 0, Place{Offset: 4}, true); !errors.Is(err, ErrNothing) {
			w.t.Errorf("beyond the end: got %v, want ErrNothing", err)
		}
		if _, err := o.SetPosition(w.t.Context(), "plain_list", 0, Place{Offset: 1}, true); err != nil {
			w.t.Fatal(err)
		}
		w.write(w.noted("a", "x", 8))
		w.caughtUp()
		w.wantFold()
	})
}

func TestTheBreakerPausesAViewWhoseEventsFail(t *testing.T) {
	onePartition(t, []projection.View{poisoned()}, func(w *world) {
		p := w.run(func(c *Config) { c.BreakerLettersMin = 5; c.BatchRecordsMax = 10 })
		var some []*kgo.Record
		for i := range 40 {
			some = append(some, w.noted(fmt.Sprintf("good%d", i), "x", 1))
		}
		w.write(append(some, w.noted("bad0", "error", 1), w.noted("bad0", "x", 1), w.noted("bad0", "x", 1))...)
		w.caughtUp()
		if err := p.Ready(); err != nil {
			w.t.Errorf("ready after one letter: %v", err)
		}
		some = nil
		for i := range 40 {
			some = append(some, w.noted(fmt.Sprintf("bad%d", i+1), "error", 1))
		}
		w.write(some...)
		waitFor(w.t, "the breaker opens", func() bool { return p.Ready() != nil })
		if err := p.Ready(); !strings.Contains(err.Error(), "breaker") {
			w.t.Errorf("ready: got %v, want the breaker named", err)
		}
		status, err := w.operator().List(w.t.Context(), "")
		if err != nil || !status[0].Paused || status[0].Behind < 10 {
			w.t.Errorf("list: got %+v and %v, want paused with a rest", status, err)
		}
		if err := w.operator().Resume(w.t.Context(), "plain_list", 0); err != nil {
			w.t.Fatal(err)
		}
		waitFor(w.t, "it goes on", func() bool { return w.next("view.plain_list.v1") > status[0].Records })
	})
}

func TestTheBreakerNeedsAShareAndANumber(t *testing.T) {
	now := t0
	fresh := func() *breaker {
		return &breaker{share: 0.5, lettersMin: 4, window: time.Minute, clock: func() time.Time { return now }}
	}
	for name, c := range map[string]struct {
		batches [][2]int // failed, applied
		apart   time.Duration
		want    bool
	}{
		"too few":             {[][2]int{{3, 0}}, 0, false},
		"enough":              {[][2]int{{2, 1}, {2, 1}}, 0, true},
		"too small a share":   {[][2]int{{2, 8}, {2, 8}}, 0, false},
		"too far apart":       {[][2]int{{3, 0}, {3, 0}}, 2 * time.Minute, false},
		"just one more share": {[][2]int{{4, 4}}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := fresh()
			got := false
			for _, batch := range c.batches {
				got = b.note(batch[0], batch[1]) || got
				now = now.Add(c.apart)
			}
			if got != c.want {
				t.Errorf("got tripped %v, want %v", got, c.want)
			}
		})
	}
	b := fresh()
	if !b.note(4, 0) || b.note(4, 0) {
		t.Error("want it to trip once")
	}
	b.reset()
	if b.note(3, 0) || !b.note(1, 0) {
		t.Error("want it to need as many letters again after a reset")
	}
}
