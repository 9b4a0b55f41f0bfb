package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// badInput is a record that cannot be taken as it is.
type badInput struct {
	name     string
	category string // account by default
	change   func(w *world, r *request)
	raw      func(rec *kgo.Record) // after the record is made
	code     string                // of outcome invalid; "" means accepted
	silent   bool                  // no reply: there is nowhere to send it
	kfake    bool                  // only the embedded broker takes such a record
}

func header(name, value string) event.Header { return event.Header{Key: name, Value: []byte(value)} }

// confluent frames a body by hand.
func confluent(id int, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), body...)
}

func valued(value []byte) func(*world, *request) {
	return func(_ *world, r *request) { r.data, r.value = nil, value }
}

func headed(headers ...event.Header) func(*world, *request) {
	return func(_ *world, r *request) { r.headers = append(r.headers, headers...) }
}

func expecting(text string) func(*world, *request) {
	return func(_ *world, r *request) { r.expected = text }
}

func typed(typ string) func(*world, *request) {
	return func(_ *world, r *request) {
		r.value, r.data, r.typ = confluent(idDeposit, 2, 0), nil, typ
	}
}

func appending(items ...codec.AppendItem) func(*world, *request) {
	return func(_ *world, r *request) { r.typ, r.data = codec.TypeAppend, codec.AppendEnvelope{Events: items} }
}

// appendAt encodes a foldstream.Append by hand, with a time that our own encoder refuses.
func appendAt(micros int64) func(*world, *request) {
	body := append([]byte{2, 20}, "note.Noted"...) // one item; type
	body = append(body, 0)                         // id
	body = binary.AppendVarint(body, micros)       // time
	body = binary.AppendVarint(body, idNoted)      // schemaId
	body = binary.AppendVarint(body, int64(len(notedBody)))
	body = append(append(body, notedBody...), 0)
	return func(_ *world, r *request) {
		r.typ, r.data, r.value = codec.TypeAppend, nil, confluent(idAppend, body...)
	}
}

// numbered is metadata of n entries.
func numbered(n int) map[string]string {
	metadata := map[string]string{}
	for i := range n {
		metadata["n"+strconv.Itoa(i)] = ""
	}
	return metadata
}

func withoutHeader(name string) func(*kgo.Record) {
	return func(rec *kgo.Record) {
		rec.Headers = slices.DeleteFunc(rec.Headers, func(h event.Header) bool { return h.Key == name })
	}
}

func stamped(at time.Time) func(*kgo.Record) {
	return func(rec *kgo.Record) { withoutHeader(event.HeaderTime)(rec); rec.Timestamp = at }
}

var notedBody = []byte{4, 'h', 'i'}

var badInputs = []badInput{
	// The value.
	{name: "tombstone", change: valued(nil), code: CodeTombstone},
	{name: "empty value", change: valued([]byte{}), code: CodeFrame},
	{name: "wrong magic", change: valued([]byte{7, 0, 0, 0, 3, 2, 0}), code: CodeFrame},
	{name: "cut inside the framing", change: valued([]byte{0, 0, 0}), code: CodeFrame},
	{name: "JSON", change: valued([]byte(`{"amount":1}`)), code: CodeFrame},
	{name: "unknown schema id", change: valued(confluent(4711, 2, 0)), code: CodeUnknownSchema},
	{name: "unknown fingerprint", change: valued([]byte{0xc3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0}), code: CodeUnknownSchema},
	{name: "a schema of another type", change: valued(confluent(idNoted, notedBody...)), code: CodeTypeMismatch},
	{name: "no body", change: valued(confluent(idDeposit)), code: CodePayload},
	{name: "cut inside the body", change: valued(confluent(idDeposit, 2, 8, 'a')), code: CodePayload},
	{name: "trailing bytes", change: valued(confluent(idDeposit, 2, 0, 0)), code: CodePayload},
	{name: "string of 2^62 bytes", change: valued(confluent(idDeposit, 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)), code: CodePayload},
	{name: "string of negative length", change: valued(confluent(idDeposit, 2, 1)), code: CodePayload},
	{name: "varint without an end", change: valued(confluent(idDeposit, bytes.Repeat([]byte{0xff}, 12)...)), code: CodePayload},
	{name: "string that is no UTF-8", change: valued(confluent(idDeposit, 2, 4, 0xff, 0xfe)), code: CodePayload},
	{name: "larger than a batch", change: func(_ *world, r *request) { r.data = deposit{Amount: 1, Note: strings.Repeat("n", 920<<10)} }, code: CodeTooLarge},
	{name: "single-object framing is as good", change: func(w *world, r *request) {
		reg, _ := w.registry.ByID(w.t.Context(), idDeposit)
		r.data, r.value = nil, append(binary.LittleEndian.AppendUint64([]byte{0xc3, 1}, uint64(reg.Schema.Fingerprint())), 2, 0)
	}},

	// The key.
	{name: "no key", raw: func(rec *kgo.Record) { rec.Key = nil }, code: CodeKey},
	{name: "empty key", raw: func(rec *kgo.Record) { rec.Key = []byte{} }, code: CodeKey},
	{name: "key of 256 bytes", raw: func(rec *kgo.Record) { rec.Key = bytes.Repeat([]byte("k"), 256) }, code: CodeKey},
	{name: "key that is no UTF-8", raw: func(rec *kgo.Record) { rec.Key = []byte{'k', 0xff} }, code: CodeKey},
	{name: "key with a NUL", raw: func(rec *kgo.Record) { rec.Key = []byte{'k', 0} }, code: CodeKey},

	// The headers.
	{name: "no type", raw: withoutHeader(event.HeaderType), code: CodeHeader},
	{name: "no id", raw: withoutHeader(event.HeaderID), code: CodeHeader},
	{name: "id twice", change: headed(header(event.HeaderID, "again")), code: CodeHeader},
	{name: "expected version twice", change: headed(header(event.HeaderExpectedVersion, "1"), header(event.HeaderExpectedVersion, "2")), code: CodeHeader},
	{name: "expected version -1", change: expecting("-1"), code: CodeHeader},
	{name: "expected version with a space", change: expecting("1 "), code: CodeHeader},
	{name: "expected version in words", change: expecting("latest"), code: CodeHeader},
	{name: "expected version of 19 digits", change: expecting("1000000000000000000"), code: CodeHeader},
	{name: "header that is no UTF-8", change: headed(event.Header{Key: event.HeaderUserID, Value: []byte{0xff}}), code: CodeHeader},
	{name: "user id with a NUL", change: headed(header(event.HeaderUserID, "a\x00b")), code: CodeHeader},
	{name: "header of 5,000 bytes", change: headed(header("x-note", strings.Repeat("n", 5000))), code: CodeHeader},
	{name: "65 headers", change: func(_ *world, r *request) {
		for range 65 {
			r.headers = append(r.headers, header("x", ""))
		}
	}, code: CodeHeader},
	{name: "another CloudEvents version", change: headed(header(event.HeaderSpecVersion, "0.3")), code: CodeHeader},
	{name: "time in words", raw: func(rec *kgo.Record) {
		withoutHeader(event.HeaderTime)(rec)
		rec.Headers = append(rec.Headers, header(event.HeaderTime, "yesterday"))
	}, code: CodeHeader},
	{name: "origin in words", change: headed(header(event.HeaderOrigin, "here")), code: CodeHeader},
	{name: "dedupe-until two days ahead", change: headed(header(event.HeaderDedupeUntil, event.FormatTime(time.Now().Add(48*time.Hour)))), code: CodeDedupeUntil},
	{name: "fs-control on a request is not carried", change: headed(header(event.HeaderControl, event.ControlClaim))},

	// Stamps.
	{name: "stamp of 1970, no time", raw: stamped(time.UnixMilli(1))},
	{name: "stamp of the year 2200, no time", raw: stamped(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)), kfake: true},
	{name: "stamp of the year 2200", raw: func(rec *kgo.Record) { rec.Timestamp = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) }, kfake: true},

	// Where the answer goes: no answer may be written into an events topic, however wrong the rest is.
	{name: "reply to an events topic", change: func(w *world, r *request) {
		r.noReply, r.headers = true, []event.Header{header(event.HeaderReplyTo, topics.Events(w.ns, "account"))}
	}, code: CodeReplyTo, silent: true},
	{name: "reply to an events topic, no type", change: func(w *world, r *request) {
		r.noReply, r.headers = true, []event.Header{header(event.HeaderReplyTo, topics.Events(w.ns, "account"))}
	}, raw: withoutHeader(event.HeaderType), code: CodeHeader, silent: true},
	{name: "reply to an events topic, no key", change: func(w *world, r *request) {
		r.noReply, r.headers = true, []event.Header{header(event.HeaderReplyTo, topics.Events(w.ns, "account"))}
	}, raw: func(rec *kgo.Record) { rec.Key = nil }, code: CodeKey, silent: true},
	{name: "reply to another namespace", change: func(_ *world, r *request) {
		r.noReply, r.headers = true, []event.Header{header(event.HeaderReplyTo, "other.replies")}
	}, code: CodeReplyTo, silent: true},

	// The type.
	{name: "a type of another category", change: typed("note.Noted"), code: CodeType},
	{name: "a type that is not registered", change: typed("account.Close"), code: CodeTypeMismatch},
	{name: "a category without a name", change: typed("account."), code: CodeType},
	{name: "a reply", change: typed(codec.TypeReply), code: CodeType},
	{name: "an event at a decider's category", change: func(_ *world, r *request) {
		r.typ, r.data = "account.Deposited", deposited{Amount: 1}
	}, code: CodeKind},
	{name: "an append at a decider's category", change: appending(codec.AppendItem{Type: "account.Deposited", SchemaID: idDeposited, Data: []byte{2, 0}}), code: CodeKind},
	{name: "a state", change: func(_ *world, r *request) {
		r.typ, r.data, r.value = "account.State", nil, confluent(idState, 2, 2)
	}, code: CodeKind},

	// foldstream.Append.
	{name: "append of nothing", category: "note", change: appending(), code: CodeEmptyAppend},
	{name: "append of 1,001 events", category: "note", change: appending(slices.Repeat([]codec.AppendItem{{Type: "note.Noted", SchemaID: idNoted, Data: notedBody}}, 1001)...), code: CodeEmptyAppend},
	{name: "append of another category's event", category: "note", change: appending(codec.AppendItem{Type: "account.Deposited", SchemaID: idDeposited, Data: []byte{2, 0}}), code: CodeType},
	{name: "append with an unknown schema", category: "note", change: appending(codec.AppendItem{Type: "note.Noted", SchemaID: 4711, Data: notedBody}), code: CodeUnknownSchema},
	{name: "append with another type's schema", category: "note", change: appending(codec.AppendItem{Type: "note.Noted", SchemaID: idDeposited, Data: notedBody}), code: CodeTypeMismatch},
	{name: "append with a bad body, behind a good one", category: "note", change: appending(
		codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody},
		codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: []byte{4, 'h'}}), code: CodePayload},
	{name: "append of the year 290000", category: "note", change: appendAt(1<<63 - 1), code: CodePayload},
	{name: "append of the year -290000", category: "note", change: appendAt(-1 << 63), code: CodePayload},
	{name: "append with a NUL in an event's id", category: "note", change: appending(codec.AppendItem{Type: "note.Noted", ID: "a\x00b", SchemaID: idNoted, Data: notedBody}), code: CodeHeader},
	{name: "append with an event's id of 300 bytes", category: "note", change: appending(codec.AppendItem{Type: "note.Noted", ID: strings.Repeat("i", 300), SchemaID: idNoted, Data: notedBody}), code: CodeHeader},
	{name: "append with a metadata name of ours", category: "note", change: appending(
		codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody},
		codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: map[string]string{"fs-origin": "x"}}), code: CodeHeader},
	{name: "append with metadata beyond the limit of a value", category: "note", change: appending(
		codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: map[string]string{"long": strings.Repeat("x", event.HeaderValueBytesMax+1)}}), code: CodeHeader},
	{name: "append with more headers than allowed, those of the request included", category: "note", change: func(w *world, r *request) {
		headed(header("one", "1"), header("two", "2"))(w, r)
		appending(codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: numbered(event.HeadersMax - 1)})(w, r)
	}, code: CodeHeader},
	{name: "append with as many headers as allowed", category: "note", change: func(w *world, r *request) {
		headed(header("one", "1"), header("two", "2"))(w, r)
		appending(codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: numbered(event.HeadersMax - 2)})(w, r)
	}},
	{name: "append of metadata that no batch takes", category: "note", change: appending(slices.Repeat([]codec.AppendItem{{
		Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: map[string]string{"long": strings.Repeat("x", 4000)}}}, 230)...), code: CodeTooLarge},
	{name: "a batch of appends", category: "note", change: func(_ *world, r *request) {
		r.typ, r.data, r.value = codec.TypeAppendBatch, nil, confluent(idAppendBatch, 0)
	}, code: CodeKind},
	{name: "an event type with a command's schema", category: "note", change: func(_ *world, r *request) {
		r.typ, r.data = "note.Noted", nil
		r.value = confluent(idDeposit, 2, 0)
	}, code: CodeTypeMismatch},
}

// Each bad record has its named outcome and, with its bytes as they came, its letter; its
// neighbours go on, and nothing of it lies in the way of the next start.
func TestBadInput(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start().serving(4)
		good := map[string][]request{"account": {w.deposit("s", 1)}, "note": {w.note("s", "n")}}
		w.send(good["account"][0], good["note"][0])
		var cases []badInput
		var records []*kgo.Record
		for _, c := range badInputs {
			if c.kfake && w.kafka.Name != testkit.Kfake {
				continue
			}
			r := w.deposit("s", 1)
			neighbour := w.deposit("s", 1)
			if c.category == "note" {
				r, neighbour = w.note("s", "bad"), w.note("s", "n")
			}
			good[r.category] = append(good[r.category], neighbour)
			if c.change != nil {
				c.change(w, &r)
			}
			rec := w.record(r)
			if c.raw != nil {
				c.raw(rec)
			}
			cases, records = append(cases, c), append(records, rec)
			if err := w.client.ProduceSync(t.Context(), rec, w.record(neighbour)).FirstErr(); err != nil {
				t.Fatalf("%s: send: %v", c.name, err)
			}
		}
		outcomes := map[topicPartition]map[int64]Outcome{}
		for _, o := range first.tells(2*len(cases) + 2) {
			at := topicPartition{topics.Commands(w.ns, o.category), o.partition}
			if outcomes[at] == nil {
				outcomes[at] = map[int64]Outcome{}
			}
			outcomes[at][o.offset] = o.Outcome
		}
		for _, requests := range good {
			for _, r := range requests {
				wantOutcome(t, w.await(r.id, 1)[0], OutcomeAccepted, "")
			}
		}
		if err := first.stop(); err != nil { // what it owes is sent
			t.Fatal(err)
		}
		letters := map[topicPartition]map[string]*kgo.Record{}
		for _, l := range w.log(topics.DeadLetters(w.ns, topics.ConsumerIngest)) {
			for p := range w.partitions {
				if headerText(l, deadletter.HeaderPartition) == itoa(int(p)) {
					at := topicPartition{headerText(l, deadletter.HeaderTopic), p}
					if letters[at] == nil {
						letters[at] = map[string]*kgo.Record{}
					}
					letters[at][headerText(l, deadletter.HeaderOffset)] = l
				}
			}
		}
		for n, c := range cases {
			rec := records[n]
			at := topicPartition{rec.Topic, rec.Partition}
			got := outcomes[at][rec.Offset]
			want := Outcome{Kind: OutcomeAccepted}
			if c.code != "" {
				want = Outcome{Kind: OutcomeInvalid, Code: c.code}
			}
			if got.Kind != want.Kind || got.Code != want.Code {
				t.Errorf("%s: got %s %q (%s), want %s %q", c.name, got.Kind, got.Code, got.Message, want.Kind, want.Code)
			}
			letter := letters[at][itoa(int(rec.Offset))]
			if wantLetter := c.code != ""; (letter != nil) != wantLetter {
				t.Errorf("%s: a letter is there: %t, want %t", c.name, letter != nil, wantLetter)
			} else if letter != nil {
				checkLetter(t, c, rec, letter)
			}
			if id := headerText(rec, event.HeaderID); id != "" {
				if answers := len(w.repliesOf(id)); !c.silent && answers == 0 {
					w.await(id, 1)
				} else if c.silent && answers != 0 {
					t.Errorf("%s: answers: got %d, want none", c.name, answers)
				}
			}
		}
		second := w.start().serving(4)
		wantOutcome(t, w.ask(w.deposit("s", 1)), OutcomeAccepted, "")
		wantOutcome(t, w.ask(w.note("s", "n")), OutcomeAccepted, "")
		if got := valueOf(second.engine.metrics.voids.WithLabelValues("account")); got != 0 {
			t.Errorf("void records in the events topic: got %v, want 0", got)
		}
		w.events("account")
		w.events("note")
	})
}

// A header holds the years 1 to 9999. An event of a time beyond them could be appended, but never be
// read again.
func TestAStampThatNoHeaderHoldsIsInvalid(t *testing.T) {
	o := &owner{clock: time.Now}
	for _, year := range []int{-290_000, 0, 10_000, 290_000} {
		c := &command{record: &kgo.Record{Value: []byte{0}, Timestamp: time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)}}
		if code, err := o.checkRequest(c); code != CodeHeader || err == nil {
			t.Errorf("year %d: got code %q (%v), want %q", year, code, err, CodeHeader)
		}
	}
}

func checkLetter(t *testing.T, c badInput, rec, letter *kgo.Record) {
	t.Helper()
	if !bytes.Equal(letter.Key, rec.Key) || !bytes.Equal(letter.Value, rec.Value) || (letter.Value == nil) != (rec.Value == nil) {
		t.Errorf("%s: the letter has key %q and %d bytes, want the record's own, %q and %d bytes", c.name, letter.Key, len(letter.Value), rec.Key, len(rec.Value))
	}
	if got := headerText(letter, deadletter.HeaderClass); got != c.code {
		t.Errorf("%s: class of the letter: got %q, want %q", c.name, got, c.code)
	}
	for i, h := range rec.Headers {
		if letter.Headers[i].Key != h.Key || !bytes.Equal(letter.Headers[i].Value, h.Value) {
			t.Errorf("%s: header %d of the letter: got %s=%q, want the record's own, %s=%q", c.name, i, letter.Headers[i].Key, letter.Headers[i].Value, h.Key, h.Value)
		}
	}
}

func TestWhatACommandCarriesIsOnItsEvents(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		r := w.deposit("s", 1)
		until := event.FormatTime(time.Now().Add(time.Hour))
		r.headers = []event.Header{
			header(event.HeaderCorrelationID, "conversation"), header(event.HeaderCausationID, "what-led-to-the-command"),
			header(event.HeaderUserID, "user"), header(event.HeaderTraceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
			header(event.HeaderDedupeUntil, until), header("tenant", "blue"), header("tenant", "green"), {Key: "empty"},
		}
		plain := w.deposit("s", 1)
		sent := w.send(r, plain)
		w.await(r.id, 1)
		w.await(plain.id, 1)
		events := w.events("account")["s"]
		got := events[0]
		for name, pair := range map[string][2]string{
			"correlation": {got.CorrelationID, "conversation"}, "causation": {got.CausationID, r.id}, "user": {got.UserID, "user"},
			"traceparent": {got.Traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			"command id":  {got.CommandID, r.id}, "type": {got.Type, "account.Deposited"},
			"time":                              {event.FormatTime(got.Time), headerText(sent[0], event.HeaderTime)},
			"dedupe until":                      {event.FormatTime(got.DedupeUntil), until},
			"id (D6)":                           {got.ID, event.DeriveID(got.Stream, r.id, 0)},
			"correlation of a beginning":        {events[1].CorrelationID, plain.id},
			"user of a command without":         {events[1].UserID, ""},
			"command offset":                    {itoa(int(events[1].CommandOffset)), itoa(int(sent[1].Offset))},
			"framing (D2)":                      {string(got.Value[:5]), string(confluent(idDeposited))},
			"headers of others, in their order": {extras(got), "tenant=blue tenant=green empty="},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: got %q, want %q", name, pair[0], pair[1])
			}
		}
	})
}

func extras(e event.Recorded) string {
	var all []string
	for _, h := range e.Extra {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return strings.Join(all, " ")
}

// D2: what is appended keeps its payload's bytes; single-object framing is only re-framed.
func TestD2AppendedBytesPassUntouched(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		reg, err := w.registry.ByID(t.Context(), idNoted)
		if err != nil {
			t.Fatal(err)
		}
		r := w.note("n", "")
		r.data, r.value = nil, append(binary.LittleEndian.AppendUint64([]byte{0xc3, 1}, uint64(reg.Schema.Fingerprint())), notedBody...)
		wantOutcome(t, w.ask(r), OutcomeAccepted, "")
		if got, want := w.events("note")["n"][0].Value, confluent(idNoted, notedBody...); !bytes.Equal(got, want) {
			t.Errorf("value: got %x, want %x", got, want)
		}
	})
}

// D5 and D10: a rejected id is decided anew, version 0 is none.
func TestD5ARejectedIDIsDecidedAnew(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		spend, fund := w.deposit("s", -5), w.deposit("s", 5)
		spend.expected, fund.expected = "any", "0"
		wantOutcome(t, w.ask(spend), OutcomeRejected, "overdrawn")
		wantOutcome(t, w.ask(fund), OutcomeAccepted, "")
		wantOutcome(t, w.ask(spend), OutcomeAccepted, "")
		sameAsNone := fund
		sameAsNone.expected = "none"
		wantOutcome(t, w.ask(sameAsNone), OutcomeDuplicate, "") // D10, also in the hash
	})
}

func TestOfConcurrentCommandsThatExpectOneVersionOneIsAccepted(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		for round := range 3 {
			var requests []request
			for range 20 {
				r := w.deposit("s", 1)
				r.expected = itoa(round)
				requests = append(requests, r)
			}
			w.send(requests...)
			accepted := 0
			for _, r := range requests {
				reply := w.await(r.id, 1)[0]
				switch OutcomeKind(reply.Outcome) {
				case OutcomeAccepted:
					accepted++
					wantVersions(t, reply, int64(round+1), int64(round+1))
				case OutcomeConflict:
					if reply.ActualVersion != int64(round+1) {
						t.Errorf("actual version: got %d, want %d", reply.ActualVersion, round+1)
					}
				default:
					t.Errorf("outcome: got %+v, want accepted or conflict", reply)
				}
			}
			if accepted != 1 {
				t.Errorf("accepted: got %d, want 1", accepted)
			}
		}
	})
}

func TestExistsHoldsOnlyForStreamsWithEvents(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		r := w.deposit("s", 1)
		r.expected = "exists"
		wantOutcome(t, w.ask(r), OutcomeConflict, "")
		w.ask(w.deposit("s", 1))
		wantOutcome(t, w.ask(r), OutcomeAccepted, "")
	})
}

// A client that sets fs-origin could have real re-routes dropped.
func TestAnOriginOfNobodyIsInvalidAndIsForgotten(t *testing.T) {
	w := onKfake(t)
	w.start().serving(4)
	commands := topics.Commands(w.ns, "account")
	own := w.topicIDs(commands)[commands]
	stream := w.streamOn(0, 0)
	for name, origin := range map[string]event.Origin{
		"another topic":        {TopicID: [16]byte{1}, Partition: 1, Offset: 1 << 40},
		"the same partition":   {TopicID: own, Partition: 0, Offset: 1 << 40},
		"no partition of ours": {TopicID: own, Partition: 99, Offset: 1 << 40},
	} {
		r := w.deposit(stream, 1)
		r.headers = []event.Header{{Key: event.HeaderOrigin, Value: []byte(origin.String())}}
		reply := w.ask(r)
		if reply.Outcome != string(OutcomeInvalid) || reply.Code != CodeHeader {
			t.Errorf("%s: got %s %s, want invalid %s", name, reply.Outcome, reply.Code, CodeHeader)
		}
	}
	// What partition 1 re-routes here is taken all the same.
	r := w.deposit(stream, 1)
	r.partition = 1
	wantOutcome(t, w.ask(r), OutcomeAccepted, "")
}

// W6: a void record becomes a letter, under the same id however often it is met; it parks nothing.
func TestW6VoidRecordsBecomeLetters(t *testing.T) {
	w := onKfake(t)
	first := w.start().serving(4)
	stream := w.streamOn(0, 0)
	w.ask(w.deposit(stream, 1))
	w.foreign(w.strayEvent(stream, 2))
	first.stop()
	w.start().serving(4).stop()
	w.start().serving(4)
	var letters []*kgo.Record
	w.eventually("two letters of the void record", func() bool {
		letters = letters[:0]
		for _, rec := range w.log(topics.DeadLetters(w.ns, "ingest")) {
			if headerText(rec, deadletter.HeaderReason) == string(deadletter.ReasonVoid) {
				letters = append(letters, rec)
			}
		}
		return len(letters) >= 2
	})
	if a, b := headerText(letters[0], deadletter.HeaderID), headerText(letters[1], deadletter.HeaderID); a == "" || a != b {
		t.Errorf("ids of the letters: got %q and %q, want the same", a, b)
	}
	wantVersions(t, w.ask(w.deposit(stream, 1)), 2, 2)
}

// One process writes the letter of a void record once, however often it takes the partition over.
func TestW6AVoidRecordIsLetteredOnceByAProcess(t *testing.T) {
	w := onKfake(t)
	w.start(func(c *Config) { c.Logger = quiet }).serving(4)
	stream := w.streamOn(0, 0)
	ids := func() []string {
		var ids []string
		for _, rec := range w.log(topics.DeadLetters(w.ns, "ingest")) {
			ids = append(ids, headerText(rec, deadletter.HeaderID))
		}
		return ids
	}
	for n := range 3 {
		// The next append finds that somebody else wrote: the partition is taken over anew.
		w.foreign(w.strayEvent(stream, 2))
		wantOutcome(t, w.ask(w.deposit(stream, 1)), OutcomeAccepted, "")
		w.eventually("the letter of the newest void record", func() bool { return len(ids()) > n })
	}
	got := ids()
	slices.Sort(got)
	if distinct := slices.Compact(slices.Clone(got)); len(got) != 3 || len(distinct) != 3 {
		t.Errorf("letters: got %d with %d ids, want one of each of three", len(got), len(distinct))
	}
}
