//go:build unix

package real

import (
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// forged is a log made by hand, of one partition unless a test says otherwise.
type forged struct {
	log  *eventLog
	next map[int32]int64
}

func forge() *forged {
	f := &forged{log: newEventLog(), next: map[int32]int64{}}
	f.log.counts["ns.execution.events"] = 1
	return f
}

func (f *forged) add(partition int32, epoch int16, key string, headers ...string) *forged {
	rec := &kgo.Record{Topic: "ns.execution.events", Partition: partition, Offset: f.next[partition], ProducerID: 9, ProducerEpoch: epoch}
	if key != "" {
		rec.Key, rec.Value = []byte(key), []byte("value")
	}
	for i := 0; i < len(headers); i += 2 {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	f.next[partition]++
	f.log.add(rec)
	return f
}

func (f *forged) claim(epoch int16) *forged {
	return f.add(0, epoch, "", event.HeaderControl, event.ControlClaim)
}

// event appends version n of a stream, left by a command.
func (f *forged) event(epoch int16, stream string, n int, command string) *forged {
	return f.eventOn(0, epoch, stream, n, command)
}

func (f *forged) eventOn(partition int32, epoch int16, stream string, n int, command string) *forged {
	return f.add(partition, epoch, stream, event.HeaderID, stream+"@"+strconv.Itoa(n)+command, event.HeaderType, "execution.X",
		event.HeaderSequence, strconv.Itoa(n), event.HeaderCommandID, command)
}

// TestTheChecksFindWhatTheyLookFor: a check that finds nothing in a broken log would prove nothing.
func TestTheChecksFindWhatTheyLookFor(t *testing.T) {
	expected := map[string]processlog.Command{}
	for _, id := range []string{"c1", "c2"} {
		expected[id] = processlog.Command{Category: "execution", StreamID: "s", ID: id, Type: "execution.Do"}
	}
	good := func() *forged { return forge().claim(1).event(1, "s", 1, "c1").claim(2).event(2, "s", 2, "c2") }
	reply := codec.Reply{RequestID: "c2", Outcome: "accepted", Category: "execution", LastVersion: 2, Offset: 3}
	replyOf := func(change func(*codec.Reply)) *codec.Reply { r := reply; change(&r); return &r }

	for name, c := range map[string]struct {
		log   *forged
		reply *codec.Reply
		want  string // part of the one fault; "" for none
	}{
		"a good log":                       {log: good(), reply: &reply},
		"a gap":                            {log: forge().event(1, "s", 1, "c1").event(1, "s", 3, "c2"), want: "version 3 follows 1"},
		"versions swapped":                 {log: forge().event(1, "s", 2, "c1").event(1, "s", 1, "c2"), want: "version 2 follows 0"},
		"a version twice":                  {log: forge().event(1, "s", 1, "c1").event(1, "s", 1, "c2"), want: "version 1 follows 1"},
		"an event id twice":                {log: good().event(2, "s", 2, "c2"), want: "stands twice"},
		"a command decided twice":          {log: good().event(2, "s", 3, "c2"), want: "left 2 events"},
		"a command lost":                   {log: forge().event(1, "s", 1, "c1"), want: "c2 (execution.Do of execution/s) left 0 events"},
		"a command that nobody sent":       {log: good().event(2, "s", 3, "c3"), want: "nobody sent"},
		"a command on another stream":      {log: forge().event(1, "s", 1, "c1").event(1, "other", 1, "c2"), want: "left an event on execution/other"},
		"a superseded epoch after a claim": {log: good().event(1, "s", 3, "c3"), want: "superseded by the claim at 2"},
		"a superseded claim again":         {log: good().claim(1), want: "superseded by the claim at 2"},
		"an answer beyond the log":         {log: good(), reply: replyOf(func(r *codec.Reply) { r.Offset = 4 }), want: "where the log has nothing"},
		"an answer for a void record":      {log: good().event(1, "s", 3, "c3"), reply: replyOf(func(r *codec.Reply) { r.Offset = 4 }), want: "which is void"},
		"an answer for a claim":            {log: good(), reply: replyOf(func(r *codec.Reply) { r.Offset = 2 }), want: "which is void"},
		"an answer for another command":    {log: good(), reply: replyOf(func(r *codec.Reply) { r.Offset = 1 }), want: "which is of command c1"},
		"an answer with another version":   {log: good(), reply: replyOf(func(r *codec.Reply) { r.LastVersion = 3 }), want: "with version 3, the log has 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := c.log.log
			_, streams := l.streamFaults()
			replies := &faults{}
			if c.reply != nil {
				l.checkReply("ns", replies, *c.reply)
			}
			var found []string
			for _, f := range []*faults{&l.broken, streams, l.acceptedFaults(expected), l.claimFaults(), replies} {
				found = append(found, f.lines...)
			}
			text := strings.Join(found, "\n")
			if (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
				t.Errorf("got faults %q, want %q", text, c.want)
			}
		})
	}
}

func TestTheStreamCheckKnowsThePartitioner(t *testing.T) {
	f := forge().eventOn(1, 1, "order-1", 1, "c1")
	f.log.counts["ns.execution.events"] = 12
	f.eventOn(2, 1, "order-1", 2, "c2") // one of two partitions must be wrong
	if _, faults := f.log.streamFaults(); faults.count == 0 {
		t.Error("a stream on two partitions: got no fault")
	}
}
