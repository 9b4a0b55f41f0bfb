package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

const readMax = 30 * time.Second

// seen is a record as a client reports it, decoded by its own means.
type seen struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       string            `json:"key"`
	Headers   map[string]string `json:"headers"`
	Data      map[string]any    `json:"data"` // a timestamp is a number: its microseconds
}

func (s seen) place() string { return fmt.Sprintf("%s[%d]@%d", s.Topic, s.Partition, s.Offset) }

// reader is a plain Go client: franz-go and goavro, and of Foldstream nothing.
type reader struct {
	t      *testing.T
	w      *world
	codecs map[uint32]*goavro.Codec
}

// events reads topics from their starts to their present ends and keeps the events whose keys
// have the prefix, in the order of their partitions.
func (r *reader) events(prefix string, names ...string) []seen {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), readMax)
	defer cancel()
	ends, err := kadm.NewClient(r.w.kafka(r.t)).ListEndOffsets(ctx, names...)
	if err != nil || ends.Error() != nil {
		r.t.Fatalf("ask where the topics end: %v, %v", err, ends.Error())
	}
	left, starts := map[string]int64{}, map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset == 0 {
			return
		}
		left[fmt.Sprint(o.Topic, o.Partition)] = o.Offset
		if starts[o.Topic] == nil {
			starts[o.Topic] = map[int32]kgo.Offset{}
		}
		starts[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
	})
	client := r.w.kafka(r.t, kgo.ConsumePartitions(starts))
	var found []seen
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.t.Fatalf("read %v: %v", names, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if place := fmt.Sprint(rec.Topic, rec.Partition); rec.Offset+1 >= left[place] {
				delete(left, place)
			}
			if event.Control(rec.Headers) == "" && strings.HasPrefix(string(rec.Key), prefix) {
				found = append(found, r.seen(rec))
			}
		})
	}
	return found
}

func (r *reader) seen(rec *kgo.Record) seen {
	r.t.Helper()
	s := seen{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Key: string(rec.Key), Headers: map[string]string{}}
	for _, h := range rec.Headers {
		if _, twice := s.Headers[h.Key]; twice {
			r.t.Errorf("%s: header %s stands there twice", s.place(), h.Key)
		}
		s.Headers[h.Key] = string(h.Value)
	}
	if len(rec.Value) < 5 || rec.Value[0] != 0 {
		r.t.Fatalf("%s: got the value %x, want Confluent framing", s.place(), rec.Value)
	}
	native, rest, err := r.codec(binary.BigEndian.Uint32(rec.Value[1:])).NativeFromBinary(rec.Value[5:])
	if err != nil || len(rest) != 0 {
		r.t.Fatalf("%s: decode: %v, %d bytes are left", s.place(), err, len(rest))
	}
	s.Data = plain(r.t, native)
	return s
}

func (r *reader) codec(id uint32) *goavro.Codec {
	r.t.Helper()
	if c := r.codecs[id]; c != nil {
		return c
	}
	var registered struct{ Schema string }
	getJSON(r.t, fmt.Sprintf("%s/schemas/ids/%d", r.w.registry, id), &registered)
	c, err := goavro.NewCodec(registered.Schema)
	if err != nil {
		r.t.Fatalf("schema %d: %v", id, err)
	}
	if r.codecs == nil {
		r.codecs = map[uint32]*goavro.Codec{}
	}
	r.codecs[id] = c
	return c
}

// plain is a decoded record as JSON would hand it back.
func plain(t *testing.T, native any) map[string]any {
	t.Helper()
	fields := native.(map[string]any)
	for name, value := range fields {
		if at, isTime := value.(time.Time); isTime {
			fields[name] = at.UnixMicro()
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&back); err != nil {
		t.Fatal(err)
	}
	return back
}

// checkEvents holds events to the wire format: place, versions, headers.
func checkEvents(t *testing.T, events []seen, partitions map[string]int32) {
	t.Helper()
	last := map[string]int64{}
	for _, e := range events {
		if got, want := e.Partition, topics.Partition([]byte(e.Key), partitions[e.Topic]); got != want {
			t.Errorf("%s of %s: got partition %d, want %d by murmur2", e.place(), e.Key, got, want)
		}
		stream := e.Topic + " " + e.Key
		if got, want := e.Headers[event.HeaderSequence], strconv.FormatInt(last[stream]+1, 10); got != want {
			t.Errorf("%s of %s: got version %s, want %s", e.place(), e.Key, got, want)
		}
		last[stream]++
		for name, want := range map[string]string{
			event.HeaderSource: "/" + namespace + "/" + strings.Split(e.Topic, ".")[1], event.HeaderSubject: e.Key,
			event.HeaderSpecVersion: "1.0", event.HeaderContentType: "application/avro",
			event.HeaderCausationID: e.Headers[event.HeaderCommandID], event.HeaderCorrelationID: e.Headers[event.HeaderCommandID],
		} {
			if got := e.Headers[name]; got != want {
				t.Errorf("%s of %s: got header %s %q, want %q", e.place(), e.Key, name, got, want)
			}
		}
		for _, name := range []string{event.HeaderID, event.HeaderTime, event.HeaderCommandHash, event.HeaderCommandOffset} {
			if e.Headers[name] == "" {
				t.Errorf("%s of %s: header %s is missing", e.place(), e.Key, name)
			}
		}
	}
}
