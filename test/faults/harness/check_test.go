package harness

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/test/faults/project"
)

// history builds the evidence of a run, request by request, as a writer without faults would leave it.
type history struct {
	run      *Run
	versions map[string]int64
	balances map[string]int64
	offsets  map[int32]int64
	now      time.Duration
}

func newHistory() *history {
	return &history{
		run:      &Run{Partitions: partitions, Namespace: "t", Progress: time.Second, Caught: time.Second},
		versions: map[string]int64{}, balances: map[string]int64{}, offsets: map[int32]int64{},
	}
}

// sent adds a sending and its command record, without an answer.
func (h *history) sent(kind Kind, stream, id, expected string, amount int64, count int) *Sending {
	category := project.Log
	if kind == KindMove {
		category = project.Account
	}
	partition := int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(stream)}, partitions))
	attempt := 1
	for _, s := range h.run.Sendings {
		if s.ID == id {
			attempt++
		}
	}
	offset := int64(len(h.run.Commands))
	h.now += time.Millisecond
	s := &Sending{ID: id, Attempt: attempt, Kind: kind, Category: category, Stream: stream, Expected: expected, Amount: amount, Count: count, Partition: partition, Called: h.now, Stored: true, Offset: offset}
	h.run.Sendings = append(h.run.Sendings, s)
	h.run.Commands = append(h.run.Commands, CommandRecord{Category: category, Partition: partition, Offset: offset, ID: id, Attempt: attempt})
	return s
}

// stored adds a sending's events.
func (h *history) stored(s *Sending) {
	for i := range s.Count {
		h.versions[s.Stream]++
		if s.Category == project.Account {
			h.balances[s.Stream] += s.Amount
		}
		h.run.Events = append(h.run.Events, EventRecord{
			Category: s.Category, Partition: s.Partition, Offset: h.offsets[s.Partition], Class: ClassEvent, Stream: s.Stream, Version: h.versions[s.Stream],
			EventID: s.ID + "/" + strconv.Itoa(i), CommandID: s.ID, CommandOffset: s.Offset, Op: s.op(i), Amount: s.Amount, Balance: h.balances[s.Stream],
		})
		h.offsets[s.Partition]++
	}
}

func (h *history) answered(s *Sending, r Reply) {
	h.now += time.Millisecond
	r.At = h.now
	s.Replies = append(s.Replies, r)
}

// accepted adds a request that went well.
func (h *history) accepted(kind Kind, stream, id, expected string, amount int64, count int) *Sending {
	s := h.sent(kind, stream, id, expected, amount, count)
	h.stored(s)
	last := h.versions[stream]
	h.answered(s, Reply{Outcome: Accepted, First: last - int64(count) + 1, Last: last, Offset: h.offsets[s.Partition] - 1})
	return s
}

func (h *history) event(i int) *EventRecord { return &h.run.Events[i] }

// wellBehaved is a run in which all outcomes occur.
func wellBehaved() *history {
	h := newHistory()
	h.accepted(KindWrite, "a", "a1", "none", 1, 1)
	h.accepted(KindAppend, "a", "a2", "1", 2, 3)
	h.answered(h.sent(KindWrite, "a", "a3", "1", 1, 1), Reply{Outcome: Conflict, Actual: 4, Offset: -1})
	h.answered(h.sent(KindAppend, "a", "a2", "1", 2, 3), Reply{Outcome: Duplicate, First: 2, Last: 4, Offset: 3})
	h.accepted(KindMove, "m", "m1", "any", 5, 2)
	h.answered(h.sent(KindMove, "m", "m2", "exists", -20, 1), Reply{Outcome: Rejected, Code: project.CodeOverdrawn, Offset: -1})
	lost := h.sent(KindWrite, "a", "a4", "any", 1, 1)
	h.stored(lost)
	h.answered(lost, Reply{Outcome: Unknown, Offset: -1})
	h.accepted(KindWrite, "a", "a5", "5", 1, 1)
	poison := h.sent(KindPoison, "a", "p1", "any", 0, 1)
	h.answered(poison, Reply{Outcome: Invalid, Code: "unknown-schema", Offset: -1})
	h.run.Letters = append(h.run.Letters, LetterRecord{CommandID: "p1", Value: poison.poison()})
	return h
}

func TestAWellBehavedRunHasNoViolations(t *testing.T) {
	t.Parallel()
	if got := Check(wellBehaved().run); len(got) > 0 {
		t.Errorf("got %v, want none", got)
	}
}

// TestEachInvariantIsChecked breaks one thing at a time.
func TestEachInvariantIsChecked(t *testing.T) {
	t.Parallel()
	views := func(h *history) {
		h.run.Views = true
		h.run.Rows = append(h.run.Rows, RowRecord{View: "logs", Key: "a", Cols: []string{"6", "wrong", "1"}})
	}
	for name, row := range map[string]struct {
		spoil func(h *history)
		want  string
	}{
		"an accepted request without an event":       {func(h *history) { h.run.Events = h.run.Events[:len(h.run.Events)-1] }, "1 acknowledged"},
		"an answer with other versions":              {func(h *history) { h.run.Sendings[0].Replies[0].Last = 2 }, "1 acknowledged"},
		"an answer with another offset":              {func(h *history) { h.run.Sendings[0].Replies[0].Offset = 9 }, "1 acknowledged"},
		"two answers that differ":                    {func(h *history) { h.answered(h.run.Sendings[2], Reply{Outcome: Conflict, Actual: 3}) }, "1 acknowledged"},
		"an invalid answer to a sound request":       {func(h *history) { h.run.Sendings[2].Replies[0].Outcome = Invalid }, "1 acknowledged"},
		"an accepted answer to poison":               {func(h *history) { h.run.Sendings[len(h.run.Sendings)-1].Replies[0].Outcome = Accepted }, "1 acknowledged"},
		"an event that nobody sent":                  {func(h *history) { h.event(0).CommandID = "nobody" }, "1 log"},
		"a request that stands twice":                {func(h *history) { h.stored(h.run.Sendings[0]) }, "1 log"},
		"half a request":                             {func(h *history) { h.event(3).CommandID = "a1" }, "1 log"},
		"another payload":                            {func(h *history) { h.event(0).Amount = 7 }, "1 log"},
		"an event of a sending that failed":          {func(h *history) { h.stored(h.run.Sendings[2]) }, "1 log"},
		"a gap":                                      {func(h *history) { h.event(1).Version = 3 }, "2 streams"},
		"an event id twice":                          {func(h *history) { h.event(1).EventID = h.event(0).EventID }, "2 streams"},
		"an event on another partition":              {func(h *history) { h.event(0).Partition = (h.event(0).Partition + 1) % partitions }, "2 streams"},
		"a balance that is not the sum":              {func(h *history) { h.event(4).Balance = 6 }, "2 streams"},
		"a record that counts and is none of ours":   {func(h *history) { h.event(0).Class = ClassAlien }, "2 streams"},
		"events against the order of their commands": {func(h *history) { h.event(0).CommandOffset = 6 }, "2 order"},
		"a conflict that never was":                  {func(h *history) { h.run.Sendings[2].Replies[0].Actual = 3 }, "history"},
		"a rejection that was not due":               {func(h *history) { h.run.Sendings[5].Amount = -1 }, "history"},
		"a command that was never answered":          {func(h *history) { h.run.Sendings[2].Replies = nil }, "6 accounted"},
		"no letter":                                  {func(h *history) { h.run.Letters = nil }, "6 letters"},
		"a letter with other bytes":                  {func(h *history) { h.run.Letters[0].Value = []byte("x") }, "6 letters"},
		"a letter for a sound request":               {func(h *history) { h.run.Letters[0].CommandID = "a1" }, "6 letters"},
		"a row that is not the fold":                 {views, "3 views"},
		"a rebuilt row that is not the live one": {func(h *history) {
			h.run.Views = true
			h.run.Rebuilt = []RowRecord{{View: "logs", Key: "b"}}
		}, "7 rebuild"},
		"an offset that goes back": {func(h *history) {
			h.run.Offsets = []OffsetRecord{{Consumer: "v", Epoch: 1, Next: 5}, {Consumer: "v", Epoch: 2, Next: 4}}
		}, "4 offsets"},
		"an epoch that goes back": {func(h *history) {
			h.run.Offsets = []OffsetRecord{{Consumer: "v", Epoch: 2, Next: 5}, {Consumer: "v", Epoch: 1, Next: 6}}
		}, "4 offsets"},
		"no progress after the faults": {func(h *history) { h.run.Progress = -1 }, "8 healing"},
		"answers owed at the end":      {func(h *history) { h.run.Owed = "1 answer" }, "8 healing"},
		"a stop that did not come": {func(h *history) {
			h.run.Stops, h.run.Silent = true, []string{"1 partitions of log are stopped, want 2"}
		}, "loud stop"},
		"what only the runner saw": {func(h *history) { h.run.Notes = []string{"a process did not end"} }, "runner"},
	} {
		h := wellBehaved()
		row.spoil(h)
		found := Check(h.run)
		if !slices.ContainsFunc(found, func(v Violation) bool { return v.Invariant == row.want }) {
			t.Errorf("%s: got %v, want a violation of %q", name, found, row.want)
		}
	}
}

// TestHistoriesAreJudgedByRealTime tells concurrent requests from those that follow each other.
func TestHistoriesAreJudgedByRealTime(t *testing.T) {
	t.Parallel()
	judge := func(build func(h *history)) bool {
		h := newHistory()
		build(h)
		return len(checkHistory(h.run, newIndex(h.run))) == 0
	}
	if !judge(func(h *history) {
		// A conflict on a version that was stored later is true while the two overlap …
		early := h.sent(KindWrite, "a", "early", "none", 1, 1)
		h.accepted(KindWrite, "a", "a1", "none", 1, 1)
		h.answered(early, Reply{Outcome: Conflict, Actual: 1})
	}) {
		t.Error("overlapping requests: got a violation, want none")
	}
	if judge(func(h *history) {
		// … and false when it was told before the other was sent.
		h.answered(h.sent(KindWrite, "a", "early", "none", 1, 1), Reply{Outcome: Conflict, Actual: 1})
		h.accepted(KindWrite, "a", "a1", "none", 1, 1)
	}) {
		t.Error("a conflict on what was not there yet: got no violation, want one")
	}
	if !judge(func(h *history) {
		// A request without an answer may take effect long after it was sent.
		late := h.sent(KindWrite, "a", "late", "any", 1, 1)
		h.accepted(KindWrite, "a", "a1", "none", 1, 1)
		h.stored(late)
		h.accepted(KindWrite, "a", "a2", "2", 1, 1)
	}) {
		t.Error("a late effect of a request without an answer: got a violation, want none")
	}
	if judge(func(h *history) {
		// A duplicate before the original can have taken effect is false.
		h.answered(h.sent(KindWrite, "a", "x", "1", 1, 1), Reply{Outcome: Duplicate, First: 2, Last: 2})
		h.accepted(KindWrite, "a", "a1", "none", 1, 1)
		h.accepted(KindWrite, "a", "x", "1", 1, 1)
	}) {
		t.Error("a duplicate of what came later: got no violation, want one")
	}
}

func TestARunIsTheSameAfterItsReport(t *testing.T) {
	t.Parallel()
	h := wellBehaved()
	h.run.Cell, h.run.Seed = "some", 7
	h.run.Faults = []FaultRecord{{Step: Step{Kind: faultKillIngest, Target: 3}, Hit: true, Note: "n"}}
	h.run.Notes = []string{"a note"}
	before := Check(h.run)
	path, err := WriteReport(t.TempDir(), h.run, before)
	if err != nil {
		t.Fatal(err)
	}
	again, found, err := ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(Check(again)), len(before); got != want || len(found) != want {
		t.Errorf("violations after reading: got %d (%d in the file), want %d", got, len(found), want)
	}
	if got, want := NewFigures(again, nil, 0), NewFigures(h.run, nil, 0); got.Operations != want.Operations || got.HitsText() != want.HitsText() || got.Events != want.Events {
		t.Errorf("figures: got %+v, want %+v", got, want)
	}
}

func TestEqualSeedsGiveEqualSchedules(t *testing.T) {
	t.Parallel()
	text := func(c Cell, seed int64) string {
		var b strings.Builder
		for _, track := range c.Plan(seed, 30*time.Second) {
			for _, step := range track {
				b.WriteString(step.String() + "\n")
			}
		}
		return b.String()
	}
	for _, c := range Cells() {
		if text(c, 1) != text(c, 1) {
			t.Errorf("cell %s: two schedules for one seed", c.Name)
		}
		if text(c, 1) == text(c, 2) {
			t.Errorf("cell %s: one schedule for two seeds", c.Name)
		}
		if text(c, 1) == "" {
			t.Errorf("cell %s: no faults in half a minute", c.Name)
		}
	}
}

func TestEachPlantedBugHasACell(t *testing.T) {
	t.Parallel()
	for _, bug := range PlantedBugs() {
		if _, known := FindCell(bug.Cell); !known {
			t.Errorf("bug %s: no cell is named %s", bug.Name, bug.Cell)
		}
	}
}

func TestPayloadsAreReadByHand(t *testing.T) {
	t.Parallel()
	framed := func(body ...byte) []byte { return append([]byte{0, 0, 0, 0, 1}, body...) }
	for name, row := range map[string]struct {
		typ             string
		value           []byte
		op              string
		amount, balance int64
		fails           bool
	}{
		"written":          {typ: project.TypeWritten, value: framed(4, 'a', 'b', 3), op: "ab", amount: -2},
		"moved":            {typ: project.TypeMoved, value: framed(2, 'x', 8, 20), op: "x", amount: 4, balance: 10},
		"another type":     {typ: "other", value: framed(2, 'x', 8), fails: true},
		"cut":              {typ: project.TypeMoved, value: framed(2, 'x', 8), fails: true},
		"bytes left":       {typ: project.TypeWritten, value: framed(2, 'x', 8, 0), fails: true},
		"a length too far": {typ: project.TypeWritten, value: framed(40, 'x', 8), fails: true},
		"no framing":       {typ: project.TypeWritten, value: []byte("x"), fails: true},
	} {
		op, amount, balance, err := readPayload(row.typ, row.value)
		if (err != nil) != row.fails || (err == nil && (op != row.op || amount != row.amount || balance != row.balance)) {
			t.Errorf("%s: got %q %d %d %v, want %q %d %d, failing %v", name, op, amount, balance, err, row.op, row.amount, row.balance, row.fails)
		}
	}
}
