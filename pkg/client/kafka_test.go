package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// broker is a namespace without an ingest.
type broker struct {
	*testkit.Kafka
	t  *testing.T
	ns string
}

func brokers(t *testing.T, run func(t *testing.T, b broker)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			b := broker{k, t, testkit.Namespace(t)}
			b.create(topics.Commands(b.ns, "note"), topics.Events(b.ns, "note"), topics.Replies(b.ns), topics.DeadLetters(b.ns, "sub.s"))
			run(t, b)
		})
	}
}

// create makes topics and waits until the broker shows them, which takes a moment.
func (b broker) create(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.CreateTopic(b.t, name, 1, nil)
	}
	adm, ctx := kadm.NewClient(b.Client(b.t)), b.ctx()
	for {
		_, err := topics.IDs(ctx, adm, names...)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("the topics do not come: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (b broker) config() Config {
	return Config{Namespace: b.ns, Kafka: []kgo.Opt{kgo.SeedBrokers(b.Seeds()...)}}
}

func (b broker) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	b.t.Cleanup(cancel)
	return ctx
}

// answering plays ingest: answer gives the replies to each record.
func (b broker) answering(answer func(request event.Request) []codec.Reply) {
	b.t.Helper()
	c := codec.New(schemas(b.t), codec.Config{})
	binding, err := c.Bind(b.t.Context(), codec.ReplyDef())
	if err != nil {
		b.t.Fatal(err)
	}
	client := b.Client(b.t, kgo.ConsumeTopics(topics.Commands(b.ns, "note")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
				request, err := event.ParseRequest(rec.Headers)
				if err != nil {
					b.t.Errorf("a request has bad headers: %v", err)
					return
				}
				for _, reply := range answer(request) {
					reply.RequestID, reply.Category, reply.StreamID, reply.Errors = request.ID, "note", string(rec.Key), []string{}
					value, err := binding.Append(nil, reply)
					if err != nil {
						b.t.Error(err)
						return
					}
					client.Produce(ctx, &kgo.Record{Topic: request.ReplyTo.Topic, Partition: request.ReplyTo.Partition, Key: request.ReplyKey, Value: value}, nil)
				}
			})
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
}

func TestAnAnswerToAnEarlierSendingThatLeftNoEventDoesNotCount(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, b broker) {
		var seen []string
		b.answering(func(r event.Request) []codec.Reply {
			seen = append(seen, fmt.Sprint(r.ID, " ", r.Attempt, " ", r.Expected, " ", r.DedupeUntil.After(time.Now().Add(time.Second))))
			if r.Attempt == "" {
				return nil // this sending is not answered in time
			}
			return []codec.Reply{{Outcome: "rejected", Code: "late"}, {Outcome: "accepted", FirstVersion: 3, LastVersion: 4, Attempt: "2"}}
		})
		cfg := b.config()
		cfg.AnswerTimeout = time.Second
		outcome, err := newClient(t, cfg).Append(b.ctx(), stream, event.ExpectExactly(2), []NewEvent{{Data: noted{Text: "x"}}}, WithID("k"))
		if err != nil || outcome.First != 3 || outcome.Last != 4 {
			t.Errorf("got %+v, %v, want the answer to the second sending", outcome, err)
		}
		if want := []string{"k  2 true", "k 2 2 true"}; !slices.Equal(seen, want) {
			t.Errorf("got requests %q, want %q", seen, want)
		}
	})
}

func TestAnUnknownAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, b broker) {
		b.answering(func(r event.Request) []codec.Reply {
			if r.Attempt == "3" {
				return []codec.Reply{{Outcome: "duplicate", FirstVersion: 1, LastVersion: 1, Attempt: "3"}}
			}
			return []codec.Reply{{Outcome: "unknown", Message: "the owner changes", Attempt: r.Attempt}}
		})
		outcome, err := newClient(t, b.config()).Append(b.ctx(), stream, event.ExpectedAny, []NewEvent{{Data: noted{Text: "x"}}})
		if err != nil || outcome.Kind != Duplicate {
			t.Errorf("got %+v, %v, want a duplicate at the third sending", outcome, err)
		}
	})
}

func TestNoMoreThanInFlightMaxAreUnanswered(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, b broker) {
		cfg := b.config()
		cfg.InFlightMax = 1
		c := newClient(t, cfg)
		came := make(chan struct{}, 10)
		b.answering(func(event.Request) []codec.Reply { came <- struct{}{}; return nil })
		first, leave := context.WithCancel(b.ctx())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := c.Append(first, stream, event.ExpectedAny, []NewEvent{{Data: noted{}}}); !errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("the first: got %v, want ErrUnknownOutcome", err)
			}
		}()
		<-came
		second, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := c.Append(second, stream, event.ExpectedAny, []NewEvent{{Data: noted{}}}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("the second: got %v, want the end of its wait, and that it was not sent", err)
		}
		leave()
		<-done
	})
}

// writer is one owner of the events partition, as kgo's producer id makes it.
type writer struct {
	b      broker
	client *kgo.Client
}

func (b broker) writer() writer { return writer{b, b.Client(b.t)} }

func (w writer) produce(rec *kgo.Record) int64 {
	w.b.t.Helper()
	rec.Topic = topics.Events(w.b.ns, "note")
	if err := w.client.ProduceSync(w.b.ctx(), rec).FirstErr(); err != nil {
		w.b.t.Fatal(err)
	}
	return rec.Offset
}

func (w writer) claim() {
	w.produce(&kgo.Record{Headers: []event.Header{{Key: event.HeaderControl, Value: []byte(event.ControlClaim)}}})
}

func (w writer) event(version int, text string) {
	w.produce(&kgo.Record{
		Key: []byte(stream.ID), Value: append(codec.AppendConfluent(nil, idNoted), append([]byte{byte(2 * len(text))}, text...)...),
		Headers: []event.Header{
			{Key: event.HeaderID, Value: []byte("e-" + text)}, {Key: event.HeaderType, Value: []byte("note.Noted")},
			{Key: event.HeaderSequence, Value: []byte(strconv.Itoa(version))}, {Key: event.HeaderCommandID, Value: []byte("c-" + text)},
			{Key: event.HeaderTime, Value: []byte("2026-01-01T00:00:00Z")}, {Key: "tenant", Value: []byte("t")},
		},
	})
}

func textsOf(t *testing.T, events []Event) string {
	t.Helper()
	var all []string
	for _, e := range events {
		data, err := e.Data()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data.(noted).Text)
	}
	return strings.Join(all, " ")
}

func TestRecordsOfAnOwnerOfOldAreNeverSeen(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, b broker) {
		c := newClient(t, b.config())
		a, z := b.writer(), b.writer()
		a.claim()
		a.event(1, "a1")
		z.claim()
		z.event(2, "z2")
		a.event(2, "void") // behind z's claim
		z.event(3, "z3")
		page, err := c.Load(b.ctx(), stream, 0, 0)
		if err != nil || textsOf(t, page.Events) != "a1 z2 z3" || page.Events[0].Metadata["tenant"] != "t" {
			t.Errorf("Load: got %q, %v, want a1 z2 z3", textsOf(t, page.Events), err)
		}
		if _, err := c.Lookup(b.ctx(), stream, "c-void"); !errors.Is(err, ErrNoCommand) {
			t.Errorf("Lookup: got %v, want ErrNoCommand", err)
		}
		if got := b.followed(c, Subscription{}, 3); got != "a1 z2 z3" {
			t.Errorf("Subscribe: got %q, want a1 z2 z3", got)
		}
		// The first record behind the committed place is void: the commit says whose count.
		a.event(4, "void")
		z.event(4, "z4")
		if got := b.followed(c, Subscription{}, 1); got != "z4" {
			t.Errorf("Subscribe again: got %q, want z4", got)
		}
		if got := b.followed(c, Subscription{Replay: true}, 4); got != "a1 z2 z3 z4" {
			t.Errorf("a replay: got %q, want a1 z2 z3 z4", got)
		}
	})
}

// followed takes n events of a subscription and ends it.
func (b broker) followed(c *Client, sub Subscription, n int) string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx())
	defer cancel()
	var got []Event
	sub.Name, sub.Category, sub.Workers = "s", "note", 1
	sub.Handler = func(_ context.Context, e Event) error {
		if got = append(got, e); len(got) == n {
			cancel()
		}
		return nil
	}
	if err := c.Subscribe(ctx, sub); err != nil {
		b.t.Fatalf("Subscribe: %v", err)
	}
	return textsOf(b.t, got)
}

func TestAScanHasALimit(t *testing.T) {
	t.Parallel()
	brokers(t, func(t *testing.T, b broker) {
		a := b.writer()
		a.claim()
		for i := range 20 {
			a.event(i+1, fmt.Sprint(i))
		}
		cfg := b.config()
		cfg.ScanBytesMax = 1000
		c := newClient(t, cfg)
		if _, err := c.Load(b.ctx(), stream, 0, 0); !errors.Is(err, ErrScanLimit) {
			t.Errorf("Load: got %v, want ErrScanLimit", err)
		}
		n := 0
		for e, err := range c.Events(b.ctx(), stream) {
			if err == nil {
				n++
			}
			if e.Version == 2 {
				break // a reader who leaves does not meet the limit
			}
		}
		if n != 2 {
			t.Errorf("Events: got %d before the reader left, want 2", n)
		}
	})
}

func TestPlacesAreOfOneLog(t *testing.T) {
	t.Parallel()
	src := &kafkaSource{topic: "t", info: topics.Info{ID: [16]byte{1}, Partitions: 2}}
	at := place{offset: 7, lineage: event.Lineage{Claim: event.Claim{ProducerID: 12, Epoch: 3}, Known: true}}
	topicID, lineage, ours := parseMetadata(src.metadata(at))
	if !ours || topicID != event.FormatTopicID(src.info.ID) || lineage != at.lineage {
		t.Errorf("metadata: got %s, %+v, %v of %q", topicID, lineage, ours, src.metadata(at))
	}
	if _, lineage, ours := parseMetadata(src.metadata(place{})); !ours || lineage.Known {
		t.Errorf("metadata without an owner: got %+v, %v", lineage, ours)
	}
	for _, foreign := range []string{"", "x", "a/b/c", event.FormatTopicID(src.info.ID) + "/1/99999", event.FormatTopicID(src.info.ID) + "/x/1"} {
		if _, _, ours := parseMetadata(foreign); ours {
			t.Errorf("metadata %q was taken for ours", foreign)
		}
	}
	other := &kafkaSource{topic: "t", info: topics.Info{ID: [16]byte{2}, Partitions: 2}}
	position := src.position([]*track{{number: 1, at: at}})
	if starts, err := src.parsePosition(position); err != nil || len(starts) != 1 || starts[1] != 7 {
		t.Errorf("position %s: got %v, %v, want 7 of partition 1 alone", position, starts, err)
	}
	if _, err := other.parsePosition(position); !errors.Is(err, ErrPosition) {
		t.Errorf("a position of another topic: got %v, want ErrPosition", err)
	}
}

func FuzzParsePosition(f *testing.F) {
	src := &kafkaSource{topic: "t", info: topics.Info{ID: [16]byte{1}, Partitions: 2}}
	f.Add(src.position(nil))
	f.Add(src.position([]*track{{number: 0, at: place{offset: 5}}}) + "0")
	f.Fuzz(func(t *testing.T, text string) {
		starts, err := src.parsePosition(text)
		if (err == nil) == errors.Is(err, ErrPosition) {
			t.Errorf("got %v of %q, want ErrPosition or nil", err, text)
		}
		if err == nil && (len(starts) > 2 || starts[0] < 0 || starts[1] < 0) {
			t.Errorf("got %v of %q", starts, text)
		}
		parseMetadata(text)
	})
}

func TestTheSchemasTopicIsReadAsItGrows(t *testing.T) {
	t.Parallel()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			ns := testkit.Namespace(t)
			r, err := NewTopicReader(ns, kgo.SeedBrokers(k.Seeds()...))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var missing *topics.MissingError
			if _, err := r.ByID(t.Context(), 1); !errors.As(err, &missing) {
				t.Fatalf("without the topic: got %v, want a MissingError", err)
			}
			broker{k, t, ns}.create(topics.Schemas(ns))
			client := k.Client(t)
			write := func(version int, id int32) {
				value, err := json.Marshal(map[string]any{"subject": "note.Noted", "version": version, "id": id, "kind": "event", "schema": notedSchema})
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range []*kgo.Record{
					{Key: []byte("fs-control/claim/x"), Value: []byte("x"), Headers: []event.Header{{Key: event.HeaderControl, Value: []byte("claim")}}},
					{Key: []byte("junk"), Value: []byte("{")}, {Key: fmt.Appendf(nil, "note.Noted/%d", version), Value: value},
				} {
					rec.Topic = topics.Schemas(ns)
					if err := client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
			}
			write(1, 7)
			reg, err := r.Latest(t.Context(), "note.Noted")
			if err != nil || reg.ID != 7 || reg.Version != 1 || reg.Kind != event.KindEvent {
				t.Fatalf("Latest: got %+v, %v", reg, err)
			}
			if found, err := r.ByFingerprint(t.Context(), reg.Schema.Fingerprint()); err != nil || found.ID != 7 {
				t.Errorf("ByFingerprint: got %+v, %v", found, err)
			}
			if found, err := r.Version(t.Context(), "note.Noted", 1); err != nil || found.ID != 7 {
				t.Errorf("Version: got %+v, %v", found, err)
			}
			write(2, 8)
			if _, err := r.ByID(t.Context(), 8); !isUnknownSchema(err) {
				t.Errorf("within the pause: got %v, want ErrUnknownSchema", err)
			}
			r.readAt = time.Time{} // as if a second had passed
			if found, err := r.ByID(t.Context(), 8); err != nil || found.Version != 2 {
				t.Errorf("a new one: got %+v, %v", found, err)
			}
		})
	}
}
