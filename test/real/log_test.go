//go:build unix

package real

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/pkg/event"
)

// entry is one record of an events topic, as every reader of ours has to take it.
type entry struct {
	record   *kgo.Record
	verdict  event.Verdict
	recorded event.Recorded // of an event
}

// eventLog is all events topics, read once from start to end.
type eventLog struct {
	partitions map[place][]entry // by offset order; offset n is entry n-first
	counts     map[string]int32  // partitions by topic
	lineages   map[place]*event.Lineage
	events     int
	claims     int
	voids      int
	broken     faults // records that cannot be an event of ours, and holes
}

func newEventLog() *eventLog {
	return &eventLog{partitions: map[place][]entry{}, counts: map[string]int32{}, lineages: map[place]*event.Lineage{}, broken: faults{what: "records"}}
}

// readLog reads the events topics by a client of its own and classifies each record.
func (w *world) readLog() *eventLog {
	w.t.Helper()
	l := newEventLog()
	for p := range w.readAll(w.eventsTopics(), l.add) {
		l.counts[p.topic]++
	}
	w.demand(&l.broken)
	return l
}

// add takes the next record of its partition in.
func (l *eventLog) add(rec *kgo.Record) {
	p := place{rec.Topic, rec.Partition}
	if l.lineages[p] == nil {
		l.lineages[p] = &event.Lineage{}
	}
	e := entry{record: rec, verdict: l.lineages[p].Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers)}
	switch e.verdict {
	case event.VerdictVoid:
		l.voids++
	case event.VerdictControl:
		if event.Control(rec.Headers) == event.ControlClaim {
			l.claims++
		}
	case event.VerdictEvent:
		l.events++
		var err error
		if e.recorded, err = event.ParseRecorded(categoryOf(rec.Topic), rec); err != nil {
			l.broken.add("%v", err)
		}
	}
	if n := len(l.partitions[p]); n > 0 && rec.Offset != l.partitions[p][n-1].record.Offset+1 {
		l.broken.add("%s: offset %d follows %d", p, rec.Offset, l.partitions[p][n-1].record.Offset)
	}
	l.partitions[p] = append(l.partitions[p], e)
}

// readAll reads topics from their start to the end that they have now.
func (w *world) readAll(names []string, visit func(*kgo.Record)) ends {
	w.t.Helper()
	end, err := w.endsOf(w.ctx, names...)
	if err != nil {
		w.t.Fatal(err)
	}
	client := w.reader(end)
	defer client.Close()
	left := 0
	for _, n := range end {
		if n > 0 {
			left++
		}
	}
	for left > 0 {
		fetches := client.PollFetches(w.ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read %s: %v", strings.Join(names, ", "), err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			last := end[place{rec.Topic, rec.Partition}] - 1
			if rec.Offset <= last {
				visit(rec)
			}
			if rec.Offset == last {
				left--
			}
		})
	}
	return end
}

func categoryOf(topic string) string { return strings.Split(topic, ".")[1] }

// at returns the entry at an offset.
func (l *eventLog) at(p place, offset int64) (entry, bool) {
	all := l.partitions[p]
	if len(all) == 0 {
		return entry{}, false
	}
	i := offset - all[0].record.Offset
	if i < 0 || i >= int64(len(all)) {
		return entry{}, false
	}
	return all[i], true
}

// each visits the valid events, partition by partition.
func (l *eventLog) each(visit func(topic string, e event.Recorded)) {
	places := slices.SortedFunc(maps.Keys(l.partitions), func(a, b place) int { return strings.Compare(a.String(), b.String()) })
	for _, p := range places {
		for _, e := range l.partitions[p] {
			if e.verdict == event.VerdictEvent {
				visit(p.topic, e.recorded)
			}
		}
	}
}

// faults gathers what is wrong, and tells only the first of many.
type faults struct {
	what  string
	lines []string
	count int
}

func (f *faults) add(format string, args ...any) {
	const linesMax = 10
	if f.count++; len(f.lines) < linesMax {
		f.lines = append(f.lines, fmt.Sprintf(format, args...))
	}
}

// demand fails the test where there are faults.
func (w *world) demand(all ...*faults) {
	w.t.Helper()
	for _, f := range all {
		if f.count > 0 {
			w.t.Errorf("%s: %d faults; the first are:\n  %s", f.what, f.count, strings.Join(f.lines, "\n  "))
		}
	}
}

// streamFaults demands that every stream has the versions 1..n in the order of the log, each
// event id once, each stream on the partition that murmur2 gives its key. It returns the number
// of streams. The partitioner is the Kafka client's, not ours.
func (l *eventLog) streamFaults() (int, *faults) {
	f := &faults{what: "streams"}
	last := map[event.StreamID]event.Version{}
	ids := map[string]struct{}{}
	partitioners := map[string]kgo.TopicPartitioner{}
	l.each(func(topic string, e event.Recorded) {
		if e.Version != last[e.Stream]+1 {
			f.add("%s: version %d follows %d at partition %d offset %d", e.Stream, e.Version, last[e.Stream], e.Partition, e.Offset)
		}
		last[e.Stream] = e.Version
		if _, twice := ids[e.ID]; twice {
			f.add("%s: event id %s stands twice", e.Stream, e.ID)
		}
		ids[e.ID] = struct{}{}
		if partitioners[topic] == nil {
			partitioners[topic] = kgo.StickyKeyPartitioner(nil).ForTopic(topic)
		}
		want := partitioners[topic].Partition(&kgo.Record{Key: []byte(e.Stream.ID)}, int(l.counts[topic]))
		if int(e.Partition) != want {
			f.add("%s: is on partition %d, murmur2 says %d", e.Stream, e.Partition, want)
		}
	})
	return len(last), f
}

// acceptedFaults demands that each of these commands left exactly one event, on its own stream,
// and that nothing else is in the log.
func (l *eventLog) acceptedFaults(expected map[string]processlog.Command) *faults {
	f := &faults{what: "commands"}
	seen := map[string]int{}
	l.each(func(_ string, e event.Recorded) {
		c, known := expected[e.CommandID]
		switch {
		case !known:
			f.add("%s: the event at partition %d offset %d is of command %q, which nobody sent", e.Stream, e.Partition, e.Offset, e.CommandID)
		case e.Stream.Category != c.Category || e.Stream.ID != c.StreamID:
			f.add("command %s for %s/%s left an event on %s", c.ID, c.Category, c.StreamID, e.Stream)
		}
		seen[e.CommandID]++
	})
	for id, c := range expected {
		if seen[id] != 1 {
			f.add("command %s (%s of %s/%s) left %d events, want 1", id, c.Type, c.Category, c.StreamID, seen[id])
		}
	}
	if l.events != len(expected) {
		f.add("the log has %d events, want %d, one for each command", l.events, len(expected))
	}
	return f
}
