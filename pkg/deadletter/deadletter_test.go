package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestFateOf(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("apply: %w", err) }
	pg := func(code string) error { return wrapped(&pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err  error
		want Fate
	}{
		"bad framing":       {wrapped(codec.ErrFrame), Fate{Park, StageDecode, "framing"}},
		"unknown schema":    {wrapped(codec.ErrUnknownSchema), Fate{Park, StageDecode, "unknown-schema"}},
		"other type":        {wrapped(codec.ErrTypeMismatch), Fate{Park, StageDecode, "type-mismatch"}},
		"hostile":           {wrapped(codec.ErrHostile), Fate{Park, StageDecode, "hostile"}},
		"incompatible":      {wrapped(codec.ErrIncompatible), Fate{Park, StageDecode, "bad-data"}},
		"upcaster":          {wrapped(codec.ErrUpcast), Fate{Park, StageUpcast, "upcast"}},
		"out of range":      {pg("22003"), Fate{Park, StageSink, "postgres-22003"}},
		"NUL in jsonb":      {pg("22P05"), Fate{Park, StageSink, "postgres-22P05"}},
		"constraint":        {pg("23514"), Fate{Park, StageSink, "postgres-23514"}},
		"key too long":      {pg("54000"), Fate{Park, StageSink, "postgres-54000"}},
		"deadlock":          {pg("40P01"), Fate{Verdict: Retry, Class: "infrastructure"}},
		"no such table":     {pg("42P01"), Fate{Verdict: Retry, Class: "infrastructure"}},
		"shutting down":     {pg("57P01"), Fate{Verdict: Retry, Class: "infrastructure"}},
		"too many clients":  {pg("53300"), Fate{Verdict: Retry, Class: "infrastructure"}},
		"time-out":          {wrapped(context.DeadlineExceeded), Fate{Verdict: Retry, Class: "infrastructure"}},
		"anything":          {errors.New("?"), Fate{Verdict: Retry, Class: "infrastructure"}},
		"said to park":      {wrapped(Parked(StageHandle, "mine", context.Canceled)), Fate{Park, StageHandle, "mine"}},
		"said to stop":      {wrapped(Stopped("gap", codec.ErrFrame)), Fate{Verdict: Stop, Class: "gap"}},
		"said to retry":     {wrapped(Retried("busy", codec.ErrFrame)), Fate{Verdict: Retry, Class: "busy"}},
		"the outermost one": {Stopped("a", Parked(StageHandle, "b", errors.New("?"))), Fate{Verdict: Stop, Class: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := FateOf(c.err); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

var (
	now    = time.Date(2026, 5, 1, 12, 0, 0, 500, time.FixedZone("east", 3600))
	record = &kgo.Record{Topic: "fs.order.events", Partition: 3, Offset: 42, Key: []byte("o\xff"), Value: []byte{0, 1}, Headers: []event.Header{{Key: "own", Value: []byte("x")}}}
	id     = [16]byte{0xab}
)

func TestALetterSaysWhereItComesFromAndWhy(t *testing.T) {
	l := New("view.a.v1", id, record, Parked(StageHandle, "handler", errors.New("bad \x00 \xff order 17")), 2, now)
	headers := l.Headers()
	if headers[0].Key != "own" || string(headers[0].Value) != "x" {
		t.Errorf("the record's own headers do not come first: %v", headers)
	}
	want := map[string]string{
		HeaderID: l.ID, HeaderConsumer: "view.a.v1", HeaderTopic: "fs.order.events", HeaderTopicID: "ab000000000000000000000000000000",
		HeaderPartition: "3", HeaderOffset: "42", HeaderStage: "handle", HeaderClass: "handler", HeaderMessage: "bad \u2400 \ufffd order 17",
		HeaderAttempts: "2", HeaderFirstAt: "2026-05-01T11:00:00.0000005Z", HeaderReason: "failed", HeaderFingerprint: l.Fingerprint,
	}
	for name, text := range want {
		if got, ok := event.HeaderValue(headers, name); !ok || string(got) != text {
			t.Errorf("header %s: got %q, want %q", name, got, text)
		}
	}
	if len(headers) != len(want)+1 {
		t.Errorf("got %d headers, want %d", len(headers), len(want)+1)
	}
}

func TestTheSameRecordHasTheSameLetterIDForOneConsumer(t *testing.T) {
	a := New("view.a.v1", id, record, errors.New("x"), 1, now)
	if b := Blocked("view.a.v1", id, record, 1, now.Add(time.Hour)); b.ID != a.ID {
		t.Errorf("the same record: got ids %s and %s", a.ID, b.ID)
	}
	other := *record
	other.Offset++
	for name, id := range map[string]string{
		"consumer": New("view.b.v1", id, record, errors.New("x"), 1, now).ID,
		"topic id": New("view.a.v1", [16]byte{1}, record, errors.New("x"), 1, now).ID,
		"offset":   New("view.a.v1", id, &other, errors.New("x"), 1, now).ID,
	} {
		if id == a.ID {
			t.Errorf("another %s has the same letter id", name)
		}
	}
}

func TestFailuresOfTheSameKindShareAFingerprint(t *testing.T) {
	of := func(text string) string {
		return New("view.a.v1", id, record, Parked(StageHandle, "handler", errors.New(text)), 1, now).Fingerprint
	}
	if of("order 17 is late") != of("order 4711 is late") {
		t.Error("failures that differ in a number have different fingerprints")
	}
	if of("order 17 is late") == of("order 17 is early") {
		t.Error("different failures share a fingerprint")
	}
}

func TestVoidNamesBothOwners(t *testing.T) {
	r := *record
	r.ProducerID, r.ProducerEpoch = 5, 1
	l := Void("view.a.v1", id, &r, event.Claim{ProducerID: 5, Epoch: 2}, now)
	if l.Reason != ReasonVoid || !strings.Contains(l.Message, "producer 5 epoch 1") || !strings.Contains(l.Message, "producer 5 epoch 2") {
		t.Errorf("got reason %s, message %q", l.Reason, l.Message)
	}
}

func FuzzCleanText(f *testing.F) {
	f.Add("é\x00\xff", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, min(limit, 100))
		got := CleanText(s, limit)
		if !utf8.ValidString(got) || strings.Contains(got, "\x00") || len(got) > limit+len("…") {
			t.Errorf("CleanText(%q, %d) = %q", s, limit, got)
		}
	})
}

func TestSinkWritesAllAndSaysWhere(t *testing.T) {
	const topic = "fs.dlq.view.a.v1"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	seeds := kgo.SeedBrokers(cluster.ListenAddrs()...)
	sink, err := NewSink(topic, seeds)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	var letters []Letter
	for i := range 20 {
		r := *record
		r.Key, r.Offset = []byte(fmt.Sprint(i)), int64(i)
		letters = append(letters, New("view.a.v1", id, &r, errors.New("x"), 1, now))
	}
	placed, err := sink.Produce(t.Context(), letters...)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(seeds, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found := map[Placed]*kgo.Record{}
	for len(found) < len(letters) {
		for _, r := range client.PollFetches(t.Context()).Records() {
			found[Placed{r.Partition, r.Offset}] = r
		}
	}
	for i, l := range letters {
		r := found[placed[i]]
		if r == nil || string(r.Key) != string(l.Record.Key) || string(r.Value) != string(l.Record.Value) || len(r.Headers) != len(l.Headers()) {
			t.Errorf("letter %d is not at %+v as written", i, placed[i])
		}
	}
	if _, err := sink.Produce(t.Context()); err != nil {
		t.Errorf("no letters: %v", err)
	}
}

func TestALetterTooLargeForItsTopicIsWrittenWithoutItsValue(t *testing.T) {
	const topic = "fs.dlq.view.a.v1"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	seeds := kgo.SeedBrokers(cluster.ListenAddrs()...)
	client, err := kgo.NewClient(seeds)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	limit := "4000"
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, map[string]*string{"max.message.bytes": &limit}, topic); err != nil {
		t.Fatal(err)
	}
	sink, err := NewSink(topic, seeds)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	r := *record
	r.Value = incompressible(20_000)
	placed, err := sink.Produce(t.Context(), New("view.a.v1", id, &r, errors.New("x"), 1, now))
	if err != nil {
		t.Fatalf("produce: %v", err)
	}
	reader, err := kgo.NewClient(seeds, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(placed[0].Offset)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	got := reader.PollFetches(t.Context()).Records()[0]
	if got.Value != nil || !slices.ContainsFunc(got.Headers, func(h event.Header) bool { return h.Key == HeaderTruncated }) {
		t.Errorf("got a value of %d bytes and headers %v, want none and the mark", len(got.Value), got.Headers)
	}
}

func incompressible(n int) []byte {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
