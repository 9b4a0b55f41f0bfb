package harness

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// Limits of healing (DESIGN §11, invariant 8).
const (
	progressMax = 15 * time.Second
	caughtMax   = 60 * time.Second
)

// violationsShown bounds what one check tells: the first say it all.
const violationsShown = 5

// Check holds a run against the invariants and returns what breaks them.
func Check(r *Run) []Violation {
	x := newIndex(r)
	var all []Violation
	for _, note := range r.Notes {
		all = append(all, Violation{"runner", note})
	}
	for _, check := range []func(*Run, *index) []Violation{
		checkAnswers, checkLog, checkStreams, checkOrder, checkHistory, checkAccounted, checkLetters,
		checkViews, checkRebuilt, checkOffsets, checkHealing, checkStopped,
	} {
		found := check(r, x)
		if n := len(found); n > violationsShown {
			found = append(found[:violationsShown], Violation{found[0].Invariant, fmt.Sprintf("and %d more", n-violationsShown)})
		}
		all = append(all, found...)
	}
	return all
}

type attemptKey struct {
	id      string
	attempt int
}

// index is the evidence by what is looked up.
type index struct {
	valid      []EventRecord            // in log order, partition by partition
	streams    map[string][]EventRecord // by category/stream, in log order
	byCommand  map[string][]EventRecord // by command id, in log order
	balances   map[string][]int64       // by category/stream, then by version
	sendings   map[attemptKey]*Sending
	requests   map[string]*Sending // by id: the first sending
	commands   map[string]CommandRecord
	copies     map[attemptKey]int // records of one sending, re-routes not counted
	rerouted   map[attemptKey]int // re-routes of one sending
	accepted   map[string]bool    // by id: some sending was answered accepted
	unanswered map[string]bool    // by id: some sending has no final answer
}

func place(category string, partition int32, offset int64) string {
	return category + "/" + strconv.Itoa(int(partition)) + "/" + strconv.FormatInt(offset, 10)
}

func newIndex(r *Run) *index {
	x := &index{
		streams: map[string][]EventRecord{}, byCommand: map[string][]EventRecord{}, balances: map[string][]int64{},
		sendings: map[attemptKey]*Sending{}, requests: map[string]*Sending{}, commands: map[string]CommandRecord{}, copies: map[attemptKey]int{},
		rerouted: map[attemptKey]int{}, accepted: map[string]bool{}, unanswered: map[string]bool{},
	}
	for _, s := range r.Sendings {
		x.sendings[attemptKey{s.ID, s.Attempt}] = s
		answer, definite := s.Definite()
		switch {
		case !definite && s.Direct != directNobody:
			x.unanswered[s.ID] = true
		case answer.Outcome == Accepted:
			x.accepted[s.ID] = true
		}
		if first := x.requests[s.ID]; first == nil || s.Attempt < first.Attempt {
			x.requests[s.ID] = s
		}
	}
	for _, c := range r.Commands {
		x.commands[place(c.Category, c.Partition, c.Offset)] = c
		key := attemptKey{c.ID, c.Attempt}
		if s := x.sendings[key]; s != nil && s.Partition != c.Partition {
			x.rerouted[key]++
		} else {
			x.copies[key]++
		}
	}
	events := slices.Clone(r.Events)
	slices.SortStableFunc(events, func(a, b EventRecord) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	for _, e := range events {
		if e.Class != ClassEvent {
			continue
		}
		key := e.Category + "/" + e.Stream
		x.valid = append(x.valid, e)
		x.streams[key] = append(x.streams[key], e)
		x.byCommand[e.CommandID] = append(x.byCommand[e.CommandID], e)
	}
	for key, events := range x.streams {
		balances := []int64{0}
		for _, e := range events {
			balances = append(balances, balances[len(balances)-1]+e.Amount)
		}
		x.balances[key] = balances
	}
	return x
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// checkAnswers is invariant 1 from the clients' side: what was acknowledged is in the log as it
// was told, and all answers to one sending agree.
func checkAnswers(r *Run, x *index) []Violation {
	var found []Violation
	fault := func(s *Sending, format string, args ...any) {
		text := fmt.Sprintf("%s/%s: request %s attempt %d: ", s.Category, s.Stream, s.ID, s.Attempt)
		found = append(found, Violation{"1 acknowledged", text + fmt.Sprintf(format, args...)})
	}
	for _, s := range r.Sendings {
		var told *Reply
		for i := range s.Replies {
			reply := &s.Replies[i]
			if reply.Outcome == Unknown {
				continue
			}
			if told != nil && !agree(*told, *reply) && !x.decidedAnew(s, *told, *reply) {
				fault(s, "answered %s %d..%d actual %d at %s and %s %d..%d actual %d at %s", told.Outcome, told.First, told.Last, told.Actual, told.At, reply.Outcome, reply.First, reply.Last, reply.Actual, reply.At)
			}
			told = reply
			switch {
			case s.Kind == KindPoison && reply.Outcome != Invalid:
				fault(s, "answered %s, though its value cannot be read", reply.Outcome)
			case s.Kind != KindPoison && reply.Outcome == Invalid && !s.Refused && !r.mayRefuse():
				fault(s, "answered invalid (%s)", reply.Code)
			case reply.Outcome == Rejected && reply.Code != project.CodeOverdrawn:
				fault(s, "rejected (%s)", reply.Code)
			case reply.Stands():
				if text := x.stands(s, *reply); text != "" {
					fault(s, "answered %s %d..%d at %s, but %s", reply.Outcome, reply.First, reply.Last, reply.At, text)
				}
			}
		}
	}
	return found
}

// agree says whether two final answers to one sending tell the same.
func agree(a, b Reply) bool {
	if a.Stands() && b.Stands() {
		return a.First == b.First && a.Last == b.Last
	}
	return a.Outcome == b.Outcome && a.Actual == b.Actual && a.Code == b.Code
}

// decidedAnew says whether two different answers to one sending are no lie: its record is there more
// than once, since the client's own library, or an owner that sent it on, sent it again after a
// fault, and both answers say that nothing was stored.
func (x *index) decidedAnew(s *Sending, a, b Reply) bool {
	key := attemptKey{s.ID, s.Attempt}
	return x.copies[key] > 1 || (x.rerouted[key] > 1 && !a.Stands() && !b.Stands())
}

// mayRefuse says whether the broker was told to refuse batches for good.
func (r *Run) mayRefuse() bool {
	return slices.ContainsFunc(r.Faults, func(f FaultRecord) bool {
		return f.Hit && (strings.HasSuffix(f.Value, "too-large") || strings.HasSuffix(f.Value, "timestamp"))
	})
}

// stands says what is wrong with an answer that tells of events, or "".
func (x *index) stands(s *Sending, reply Reply) string {
	events := x.byCommand[s.ID]
	if len(events) == 0 {
		return "the log has no event of it"
	}
	first, last := events[0], events[len(events)-1]
	switch {
	case first.Category != s.Category || first.Stream != s.Stream:
		return fmt.Sprintf("its events are on %s/%s", first.Category, first.Stream)
	case first.Version != reply.First || last.Version != reply.Last:
		return fmt.Sprintf("its events have the versions %d..%d", first.Version, last.Version)
	case last.Offset != reply.Offset:
		return fmt.Sprintf("it was told offset %d, its last event is at %d", reply.Offset, last.Offset)
	}
	return ""
}

// checkLog is invariant 1 from the log's side: each request is there at most once, whole, as it was
// sent, and not after a sending that failed for certain.
func checkLog(r *Run, x *index) []Violation {
	var found []Violation
	for _, id := range sortedKeys(x.byCommand) {
		events := x.byCommand[id]
		fault := func(format string, args ...any) {
			e := events[0]
			text := fmt.Sprintf("%s[%d]@%d, stream %s, request %q: ", e.Category, e.Partition, e.Offset, e.Stream, id)
			found = append(found, Violation{"1 log", text + fmt.Sprintf(format, args...)})
		}
		request := x.requests[id]
		if request == nil {
			fault("nobody sent it")
			continue
		}
		if request.Kind == KindPoison {
			fault("its value cannot be read")
		}
		if len(events) != request.Count {
			fault("%d events, want %d", len(events), request.Count)
		}
		for i, e := range events {
			if e.Version != events[0].Version+int64(i) || e.Offset != events[0].Offset+int64(i) || e.CommandOffset != events[0].CommandOffset {
				fault("event %d has version %d, offset %d, command offset %d: the request stands twice, or apart", i, e.Version, e.Offset, e.CommandOffset)
				break
			}
			if e.Op != request.op(i) || e.Amount != request.Amount {
				fault("event %d holds %q %d, want %q %d", i, e.Op, e.Amount, request.op(i), request.Amount)
			}
		}
		if text := x.failed(r, events[0]); text != "" {
			fault("%s", text)
		}
	}
	return found
}

// failed says whether the sending that an event came from had failed for certain.
func (x *index) failed(r *Run, e EventRecord) string {
	if e.CommandOffset < 0 {
		return x.failedInMemory(e)
	}
	c, known := x.commands[place(e.Category, e.Partition, e.CommandOffset)]
	switch {
	case !known && r.Stops:
		return "" // of a commands topic that is gone
	case !known:
		return fmt.Sprintf("there is no command at offset %d", e.CommandOffset)
	case c.ID != e.CommandID:
		return fmt.Sprintf("the command at offset %d is request %s", e.CommandOffset, c.ID)
	}
	s := x.sendings[attemptKey{c.ID, c.Attempt}]
	if s == nil || x.copies[attemptKey{c.ID, c.Attempt}] > 1 {
		return ""
	}
	if answer, definite := s.Definite(); definite && !answer.Stands() {
		return fmt.Sprintf("attempt %d was answered %s at %s", c.Attempt, answer.Outcome, answer.At)
	}
	return ""
}

// failedInMemory is failed for an event without a command record: some sending of its request to an
// instance must have come to it, or have an unknown fate.
func (x *index) failedInMemory(e EventRecord) string {
	text := "no instance was asked for it"
	for attempt := 1; ; attempt++ {
		s := x.sendings[attemptKey{e.CommandID, attempt}]
		if s == nil {
			return text
		}
		if s.Direct == "" {
			continue
		}
		answer, definite := s.Definite()
		if !definite || answer.Stands() {
			return ""
		}
		text = fmt.Sprintf("attempt %d was answered %s at %s", attempt, answer.Outcome, answer.At)
	}
}

// op is what the i-th event of a request holds.
func (s *Sending) op(i int) string {
	if s.Kind == KindAppend {
		return s.ID + "#" + strconv.Itoa(i)
	}
	return s.ID
}

// checkStreams is invariant 2: versions 1..n without gap, double or swap; every event on its key's
// partition; every event id once; every balance that of the events before.
func checkStreams(r *Run, x *index) []Violation {
	var found []Violation
	fault := func(e EventRecord, format string, args ...any) {
		text := fmt.Sprintf("%s[%d]@%d, stream %s: ", e.Category, e.Partition, e.Offset, e.Stream)
		found = append(found, Violation{"2 streams", text + fmt.Sprintf(format, args...)})
	}
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("")
	ids := map[string]bool{}
	for _, key := range sortedKeys(x.streams) {
		balance := int64(0)
		for i, e := range x.streams[key] {
			if want := int64(i + 1); e.Version != want {
				fault(e, "version %d where %d is due", e.Version, want)
				break
			}
			if ids[e.EventID] {
				fault(e, "event id %s stands twice", e.EventID)
			}
			ids[e.EventID] = true
			if want := partitioner.Partition(&kgo.Record{Key: []byte(e.Stream)}, int(r.Partitions)); int(e.Partition) != want {
				fault(e, "its key belongs to partition %d", want)
			}
			balance += e.Amount
			if e.Category == project.Account && (e.Balance != balance || balance < 0) {
				fault(e, "balance %d, the moves give %d", e.Balance, balance)
			}
		}
	}
	for _, e := range r.Events {
		if e.Class == ClassAlien {
			fault(e, "counts as an event and is none: %s", e.Fault)
		}
	}
	return found
}

// checkOrder is PROTOCOL W10: the events of a partition stand in the order of their commands.
func checkOrder(r *Run, x *index) []Violation {
	if r.Stops {
		return nil // a new commands topic counts from zero again
	}
	var found []Violation
	last := map[string]EventRecord{}
	for _, e := range x.valid {
		if e.CommandOffset < 0 {
			continue // asked in memory: in an order of its own
		}
		key := place(e.Category, e.Partition, 0)
		before, seen := last[key]
		if seen && (e.CommandOffset < before.CommandOffset || (e.CommandOffset == before.CommandOffset && e.CommandID != before.CommandID)) {
			found = append(found, Violation{"2 order", fmt.Sprintf("%s[%d]@%d is of command offset %d, the event before it of %d", e.Category, e.Partition, e.Offset, e.CommandOffset, before.CommandOffset)})
		}
		last[key] = e
	}
	return found
}

// checkAccounted is invariant 6 for ingest: every command that is in the topic was answered.
func checkAccounted(r *Run, x *index) []Violation {
	if r.Stops {
		return nil
	}
	var found []Violation
	for _, c := range r.Commands {
		s := x.sendings[attemptKey{c.ID, c.Attempt}]
		switch {
		case s == nil && c.Rerouted:
		case s == nil:
			found = append(found, Violation{"6 accounted", fmt.Sprintf("%s[%d]@%d: request %s attempt %d is of no client", c.Category, c.Partition, c.Offset, c.ID, c.Attempt)})
		case len(s.Replies) == 0:
			found = append(found, Violation{"6 accounted", fmt.Sprintf("%s[%d]@%d: request %s attempt %d was never answered", c.Category, c.Partition, c.Offset, c.ID, c.Attempt)})
		}
	}
	return found
}

// checkLetters is invariant 6 for what cannot be read: a letter with the original bytes for each,
// and none for anything else.
func checkLetters(r *Run, x *index) []Violation {
	var found []Violation
	lettered, void := map[string]bool{}, map[string]bool{}
	for _, e := range r.Events {
		if e.Class == ClassVoid {
			void[place(topics.Events(r.Namespace, e.Category), e.Partition, e.Offset)] = true
		}
	}
	for _, l := range r.Letters {
		s := x.requests[l.CommandID]
		switch {
		case void[place(l.Topic, l.Partition, l.Offset)]:
			continue // by each owner that reads over it, under one id
		case s == nil || s.Kind != KindPoison:
			found = append(found, Violation{"6 letters", fmt.Sprintf("%s[%d]@%d became a letter, request %q", l.Topic, l.Partition, l.Offset, l.CommandID)})
		case !bytes.Equal(l.Value, s.poison()):
			found = append(found, Violation{"6 letters", fmt.Sprintf("%s[%d]@%d: the letter holds %x, sent was %x", l.Topic, l.Partition, l.Offset, l.Value, s.poison())})
		}
		lettered[l.CommandID] = true
	}
	for _, s := range r.Sendings {
		if answer, definite := s.Definite(); s.Kind == KindPoison && definite && answer.Outcome == Invalid && !lettered[s.ID] {
			found = append(found, Violation{"6 letters", fmt.Sprintf("request %s was answered invalid, and there is no letter of it", s.ID)})
		}
	}
	return found
}

// poison is the value of a request that cannot be read: framed, by a schema id that nobody has.
func (s *Sending) poison() []byte { return append([]byte{0, 0x7f, 0xff, 0xff, 0xff}, s.ID...) }

// checkViews is invariant 3: the views' rows are the fold of the log, row for row. The fold here
// shares no code with the projector.
func checkViews(r *Run, x *index) []Violation {
	if !r.Views {
		return nil
	}
	want := map[string]string{}
	flow := map[int64][3]int64{}
	for _, key := range sortedKeys(x.streams) {
		events := x.streams[key]
		digest := ""
		for _, e := range events {
			digest = project.Chain(digest, e.Op)
			if e.Category == project.Account {
				f, seen := flow[e.Amount]
				if !seen {
					f = [3]int64{0, e.Balance, e.Balance}
				}
				flow[e.Amount] = [3]int64{f[0] + 1, min(f[1], e.Balance), max(f[2], e.Balance)}
			}
		}
		last := events[len(events)-1]
		view, number := "logs", last.Amount
		if last.Category == project.Account {
			view, number = "accounts", last.Balance
		}
		want[view+" "+last.Stream] = fmt.Sprint([]string{strconv.Itoa(len(events)), digest, strconv.FormatInt(number, 10)})
	}
	for amount, f := range flow {
		want["flow "+strconv.FormatInt(amount, 10)] = fmt.Sprint([]string{strconv.FormatInt(f[0], 10), strconv.FormatInt(f[1], 10), strconv.FormatInt(f[2], 10)})
	}
	got := map[string]string{}
	var found []Violation
	voids := 0
	for _, e := range r.Events {
		if e.Class == ClassVoid {
			voids += 2 // a view of logs, or one of accounts, and the index of events
			if e.Category == project.Account {
				voids++ // two views read accounts
			}
		}
	}
	for _, row := range r.Rows {
		switch row.View {
		case "parked":
			found = append(found, Violation{"3 views", fmt.Sprintf("%s is parked", row.Key)})
		case "letters":
			if row.Cols[0] != "void" {
				found = append(found, Violation{"3 views", fmt.Sprintf("%s became a letter: %v", row.Key, row.Cols)})
				continue
			}
			voids--
		default:
			got[row.View+" "+row.Key] = fmt.Sprint(row.Cols)
		}
	}
	if voids != 0 {
		found = append(found, Violation{"6 letters", fmt.Sprintf("void records want %d more letters in the views' table than there are", voids)})
	}
	return append(found, compareRows("3 views", "the fold of the log", want, got)...)
}

// checkRebuilt is invariant 7: views built from zero equal the live ones.
func checkRebuilt(r *Run, _ *index) []Violation {
	if !r.Views || r.Stops || r.Rebuilt == nil {
		return nil
	}
	rows := func(records []RowRecord) map[string]string {
		all := map[string]string{}
		for _, row := range records {
			if row.View != "letters" {
				all[row.View+" "+row.Key] = fmt.Sprint(row.Cols)
			}
		}
		return all
	}
	return compareRows("7 rebuild", "the live view", rows(r.Rows), rows(r.Rebuilt))
}

func compareRows(invariant, of string, want, got map[string]string) []Violation {
	var found []Violation
	for _, key := range sortedKeys(want) {
		if got[key] != want[key] {
			found = append(found, Violation{invariant, fmt.Sprintf("row %s: got %q, %s has %q", key, got[key], of, want[key])})
		}
	}
	for _, key := range sortedKeys(got) {
		if _, known := want[key]; !known {
			found = append(found, Violation{invariant, fmt.Sprintf("row %s is not in %s", key, of)})
		}
	}
	return found
}

// checkOffsets is invariant 4: a view's offset and its epoch never go back.
func checkOffsets(r *Run, _ *index) []Violation {
	var found []Violation
	last := map[string]OffsetRecord{}
	for _, o := range r.Offsets {
		key := o.Consumer + " " + place(o.Topic, o.Partition, 0)
		before, seen := last[key]
		if seen && (o.Next < before.Next || o.Epoch < before.Epoch) {
			found = append(found, Violation{"4 offsets", fmt.Sprintf("%s %s[%d]: epoch %d offset %d at %s, epoch %d offset %d at %s", o.Consumer, o.Topic, o.Partition, before.Epoch, before.Next, before.At, o.Epoch, o.Next, o.At)})
		}
		last[key] = o
	}
	return found
}

// checkHealing is invariant 8: once the faults have ended, things move, and nothing stays owed.
func checkHealing(r *Run, _ *index) []Violation {
	if r.Stops {
		return nil
	}
	var found []Violation
	if r.Progress < 0 || r.Progress > progressMax {
		found = append(found, Violation{"8 healing", fmt.Sprintf("the first answer came %s after the faults had ended (-1: never), at most %s is allowed", r.Progress, progressMax)})
	}
	if r.Caught < 0 || r.Caught > max(caughtMax, 2*(r.Ended)) || r.Owed != "" {
		found = append(found, Violation{"8 healing", fmt.Sprintf("all was done %s after the load had ended (-1: never), at most %s is allowed; owed: %s", r.Caught, caughtMax, r.Owed)})
	}
	return found
}

// checkStopped demands, of a fault that must not be survived silently, that the partitions that it
// hit stopped loudly. What was answered meanwhile is held to the log by the other checks.
func checkStopped(r *Run, _ *index) []Violation {
	if !r.Stops {
		return nil
	}
	var found []Violation
	if len(r.Silent) > 0 {
		found = append(found, Violation{"loud stop", strings.Join(r.Silent, "; ")})
	}
	return found
}
