// Package vectors holds Foldstream's Go code to the test vectors of this folder. The vectors were
// written by generate.py and not by this code, so that a client in any language can be checked
// against the very same files. What only the engine can show (hash.json and headers.json) is
// checked in internal/engine.
package vectors

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// read decodes one file. A key that the test does not know is an error: a vector that nothing
// looks at proves nothing.
func read[T any](t *testing.T, name string) T {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decoder := json.NewDecoder(f)
	decoder.DisallowUnknownFields()
	var v T
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatalf("vector is not hex: %v", err)
	}
	return b
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s: got %x, want %s", what, got, want)
	}
}

// schema is a schema as the vectors describe it.
type schema struct {
	Type        string     `json:"type"`
	Version     int        `json:"version"`
	Kind        event.Kind `json:"kind"`
	ID          int32      `json:"id"`
	Path        string     `json:"path"` // from the repository's root
	Canonical   string     `json:"canonical"`
	Fingerprint string     `json:"fingerprint"`
}

func (s schema) register(t *testing.T) *codec.Registered {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(s.Path)))
	if err != nil {
		t.Fatal(err)
	}
	reg, err := codec.RegisterText(s.ID, s.Type, s.Version, s.Kind, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

func codecOf(t *testing.T, schemas ...schema) *codec.Codec {
	t.Helper()
	var registered []*codec.Registered
	for _, s := range schemas {
		registered = append(registered, s.register(t))
	}
	return codec.New(codec.NewStaticReader(registered...), codec.Config{})
}

type framingFile struct {
	About   string   `json:"about"`
	Schemas []schema `json:"schemas"`
	Vectors []struct {
		Name         string         `json:"name"`
		Type         string         `json:"type"`
		Value        map[string]any `json:"value"`
		Body         string         `json:"body"`
		Confluent    string         `json:"confluent"`
		SingleObject string         `json:"singleObject"`
	} `json:"vectors"`
	Refused []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
		Code  string `json:"code"`
	} `json:"refused"`
}

func TestSchemasHaveTheirCanonicalFormAndFingerprint(t *testing.T) {
	t.Parallel()
	for _, s := range read[framingFile](t, "framing.json").Schemas {
		got := s.register(t).Schema
		if got.Canonical() != s.Canonical {
			t.Errorf("%s: canonical form: got %s, want %s", s.Type, got.Canonical(), s.Canonical)
		}
		if got.Fingerprint().String() != s.Fingerprint {
			t.Errorf("%s: fingerprint: got %s, want %s", s.Type, got.Fingerprint(), s.Fingerprint)
		}
	}
}

func TestBothFramingsAreReadAndWritten(t *testing.T) {
	t.Parallel()
	file := read[framingFile](t, "framing.json")
	cdc := codecOf(t, file.Schemas...)
	for _, v := range file.Vectors {
		body := unhex(t, v.Body)
		for framing, value := range map[codec.Framing]string{codec.FramingConfluent: v.Confluent, codec.FramingSingleObject: v.SingleObject} {
			payload, err := cdc.Inspect(t.Context(), v.Type, unhex(t, value))
			if err != nil {
				t.Errorf("%s, %s: %v", v.Name, framing, err)
				continue
			}
			wantHex(t, v.Name+", body in "+framing.String(), payload.Body, v.Body)
			wantFields(t, v.Name, cdc, payload, v.Value)
			s := payload.Registered
			wantHex(t, v.Name+", confluent", append(codec.AppendConfluent(nil, s.ID), body...), v.Confluent)
			wantHex(t, v.Name+", single-object", append(codec.AppendSingleObject(nil, s.Schema.Fingerprint()), body...), v.SingleObject)
		}
	}
}

// wantFields compares a decoded payload with JSON: numbers by their text, times as microseconds.
func wantFields(t *testing.T, name string, cdc *codec.Codec, payload codec.Payload, want map[string]any) {
	t.Helper()
	got, err := cdc.DecodeMap(payload)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	text := func(v any) string {
		switch v := v.(type) {
		case time.Time:
			return strconv.FormatInt(v.UnixMicro(), 10)
		case int64:
			return strconv.FormatInt(v, 10)
		case float64: // a JSON number
			return strconv.FormatInt(int64(v), 10)
		}
		return v.(string)
	}
	if len(got) != len(want) {
		t.Errorf("%s: got fields %v, want %v", name, got, want)
	}
	for field, value := range want {
		if text(got[field]) != text(value) {
			t.Errorf("%s, field %s: got %v, want %v", name, field, got[field], value)
		}
	}
}

func TestUnsoundValuesAreRefusedWithTheirCode(t *testing.T) {
	t.Parallel()
	file := read[framingFile](t, "framing.json")
	cdc := codecOf(t, file.Schemas...)
	kinds := map[string]error{
		"frame": codec.ErrFrame, "unknown-schema": codec.ErrUnknownSchema, "type-mismatch": codec.ErrTypeMismatch, "payload": codec.ErrHostile,
	}
	for _, v := range file.Refused {
		want, known := kinds[v.Code]
		if !known {
			t.Fatalf("%s: code %q is none of a value's", v.Name, v.Code)
		}
		if _, err := cdc.Inspect(t.Context(), "invoice.Issued", unhex(t, v.Value)); !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want one that wraps %q", v.Name, err, want)
		}
	}
}

func TestIDsAreDerived(t *testing.T) {
	t.Parallel()
	type file struct {
		About           string `json:"about"`
		Namespace       string `json:"namespace"`
		LetterNamespace string `json:"letterNamespace"`
		Events          []struct {
			Category  string `json:"category"`
			StreamID  string `json:"streamId"`
			CommandID string `json:"commandId"`
			Index     int    `json:"index"`
			NameHex   string `json:"nameHex"`
			ID        string `json:"id"`
		} `json:"events"`
		Replies []struct {
			RequestID string `json:"requestId"`
			NameHex   string `json:"nameHex"`
			ID        string `json:"id"`
		} `json:"replies"`
		Letters []struct {
			Consumer  string `json:"consumer"`
			TopicID   string `json:"topicId"`
			Partition int32  `json:"partition"`
			Offset    int64  `json:"offset"`
			NameHex   string `json:"nameHex"`
			ID        string `json:"id"`
		} `json:"letters"`
	}
	f := read[file](t, "ids.json")
	for _, v := range f.Events {
		if got := event.DeriveID(event.StreamID{Category: v.Category, ID: v.StreamID}, v.CommandID, v.Index); got != v.ID {
			t.Errorf("event %d of command %q on %s/%s: got id %s, want %s", v.Index, v.CommandID, v.Category, v.StreamID, got, v.ID)
		}
	}
	for _, v := range f.Replies {
		if got := event.ReplyID(v.RequestID); got != v.ID {
			t.Errorf("reply to %q: got id %s, want %s", v.RequestID, got, v.ID)
		}
	}
	for _, v := range f.Letters {
		rec := &kgo.Record{Partition: v.Partition, Offset: v.Offset}
		got := deadletter.New(v.Consumer, topicID(t, v.TopicID), rec, errors.New("some fault"), 1, time.Now()).ID
		if got != v.ID {
			t.Errorf("letter of %s on %s/%d/%d: got id %s, want %s", v.Consumer, v.TopicID, v.Partition, v.Offset, got, v.ID)
		}
	}
	if len(f.Events)*len(f.Replies)*len(f.Letters) == 0 {
		t.Error("ids.json lacks vectors of a kind")
	}
}

func topicID(t *testing.T, text string) [16]byte {
	t.Helper()
	id, err := event.ParseTopicID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

type appendVector struct {
	Name   string `json:"name"`
	Append struct {
		Events []appendItem `json:"events"`
	} `json:"append"`
	Body  string `json:"body"`
	Value string `json:"value"`
}

type appendItem struct {
	Type     string            `json:"type"`
	ID       string            `json:"id"`
	Time     int64             `json:"time"`
	SchemaID int32             `json:"schemaId"`
	Data     string            `json:"data"`
	Metadata map[string]string `json:"metadata"`
}

func (i appendItem) item(t *testing.T) codec.AppendItem {
	t.Helper()
	return codec.AppendItem{Type: i.Type, ID: i.ID, Time: i.Time, SchemaID: i.SchemaID, Data: unhex(t, i.Data), Metadata: i.Metadata}
}

func (v appendVector) envelope(t *testing.T) codec.AppendEnvelope {
	t.Helper()
	envelope := codec.AppendEnvelope{Events: []codec.AppendItem{}}
	for _, e := range v.Append.Events {
		envelope.Events = append(envelope.Events, e.item(t))
	}
	return envelope
}

type appendsFile struct {
	About   string         `json:"about"`
	Schema  schema         `json:"schema"`
	Vectors []appendVector `json:"vectors"`
	Refused []struct {
		Name     string            `json:"name"`
		Metadata map[string]string `json:"metadata"`
		Header   string            `json:"header"`
	} `json:"refused"`
}

// What a client of version 1 sends is read by version 2: its items have no metadata.
func TestAppendsOfVersion1AreRead(t *testing.T) {
	t.Parallel()
	f := read[appendsFile](t, "append.json")
	cdc := codecOf(t, f.Schema, read[appendsFile](t, "append.v2.json").Schema)
	binding := bind(t, cdc, codec.AppendDef())
	for _, v := range f.Vectors {
		want := v.envelope(t)
		if got := decode(t, cdc, binding, codec.TypeAppend, v.Value).(codec.AppendEnvelope); !slices.EqualFunc(got.Events, want.Events, sameItem) {
			t.Errorf("%s: got %+v, want %+v", v.Name, got, want)
		}
		wantHex(t, v.Name+", body", unhex(t, v.Value)[codec.ConfluentHeaderBytes:], v.Body)
	}
	if len(f.Vectors) == 0 || len(f.Refused) != 0 {
		t.Errorf("got %d vectors and %d refused ones, want some and none", len(f.Vectors), len(f.Refused))
	}
}

func TestAppendsAreReadAndWritten(t *testing.T) {
	t.Parallel()
	f := read[appendsFile](t, "append.v2.json")
	cdc := codecOf(t, f.Schema)
	binding := bind(t, cdc, codec.AppendDef())
	for _, v := range f.Vectors {
		want := v.envelope(t)
		if got := decode(t, cdc, binding, codec.TypeAppend, v.Value).(codec.AppendEnvelope); !slices.EqualFunc(got.Events, want.Events, sameItem) {
			t.Errorf("%s: got %+v, want %+v", v.Name, got, want)
		}
		wantHex(t, v.Name, encode(t, binding, want), v.Value)
		wantHex(t, v.Name+", body", encode(t, binding, want)[codec.ConfluentHeaderBytes:], v.Body)
	}
	for _, v := range f.Refused {
		var fault *event.HeaderError
		if err := codec.CheckMetadata(v.Metadata); !errors.As(err, &fault) || !strings.HasPrefix(v.Header, strings.TrimSuffix(fault.Header, "…")) {
			t.Errorf("%s: got error %v, want a fault of header %q", v.Name, err, v.Header)
		}
	}
	if len(f.Vectors)*len(f.Refused) == 0 {
		t.Error("append.v2.json lacks vectors of a kind")
	}
}

func TestBatchesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	type file struct {
		About   string `json:"about"`
		Schema  schema `json:"schema"`
		Vectors []struct {
			Name  string `json:"name"`
			Batch struct {
				Requests []struct {
					Category string       `json:"category"`
					StreamID string       `json:"streamId"`
					ID       string       `json:"id"`
					Expected string       `json:"expectedVersion"`
					Events   []appendItem `json:"events"`
				} `json:"requests"`
			} `json:"batch"`
			Body  string `json:"body"`
			Value string `json:"value"`
		} `json:"vectors"`
	}
	f := read[file](t, "append-batch.json")
	cdc := codecOf(t, f.Schema)
	binding := bind(t, cdc, codec.AppendBatchDef())
	for _, v := range f.Vectors {
		want := codec.AppendBatch{Requests: []codec.AppendBatchRequest{}}
		for _, r := range v.Batch.Requests {
			request := codec.AppendBatchRequest{Category: r.Category, StreamID: r.StreamID, ID: r.ID, Expected: r.Expected}
			for _, e := range r.Events {
				request.Events = append(request.Events, e.item(t))
			}
			want.Requests = append(want.Requests, request)
		}
		got := decode(t, cdc, binding, codec.TypeAppendBatch, v.Value).(codec.AppendBatch)
		if !slices.EqualFunc(got.Requests, want.Requests, sameRequest) {
			t.Errorf("%s: got %+v, want %+v", v.Name, got, want)
		}
		wantHex(t, v.Name, encode(t, binding, want), v.Value)
		wantHex(t, v.Name+", body", encode(t, binding, want)[codec.ConfluentHeaderBytes:], v.Body)
	}
}

func sameRequest(a, b codec.AppendBatchRequest) bool {
	return a.Category == b.Category && a.StreamID == b.StreamID && a.ID == b.ID && a.Expected == b.Expected && slices.EqualFunc(a.Events, b.Events, sameItem)
}

func sameItem(a, b codec.AppendItem) bool {
	return a.Type == b.Type && a.ID == b.ID && a.Time == b.Time && a.SchemaID == b.SchemaID && string(a.Data) == string(b.Data) && maps.Equal(a.Metadata, b.Metadata)
}

func TestRepliesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	type file struct {
		About   string `json:"about"`
		Schema  schema `json:"schema"`
		Vectors []struct {
			Name  string      `json:"name"`
			Reply codec.Reply `json:"reply"` // its fields differ from JSON's names in case only
			Body  string      `json:"body"`
			Value string      `json:"value"`
		} `json:"vectors"`
	}
	f := read[file](t, "reply.json")
	cdc := codecOf(t, f.Schema)
	binding := bind(t, cdc, codec.ReplyDef())
	for _, v := range f.Vectors {
		got := decode(t, cdc, binding, codec.TypeReply, v.Value).(codec.Reply)
		if !slices.Equal(got.Errors, v.Reply.Errors) {
			t.Errorf("%s: got errors %q, want %q", v.Name, got.Errors, v.Reply.Errors)
		}
		wantHex(t, v.Name, encode(t, binding, v.Reply), v.Value)
		wantHex(t, v.Name+", read and written again", encode(t, binding, got), v.Value)
		wantHex(t, v.Name+", body", encode(t, binding, got)[codec.ConfluentHeaderBytes:], v.Body)
	}
}

func bind(t *testing.T, cdc *codec.Codec, def codec.TypeDef) *codec.Binding {
	t.Helper()
	binding, err := cdc.Bind(context.Background(), def)
	if err != nil {
		t.Fatal(err)
	}
	return binding
}

func decode(t *testing.T, cdc *codec.Codec, binding *codec.Binding, typ, value string) any {
	t.Helper()
	payload, err := cdc.Inspect(t.Context(), typ, unhex(t, value))
	if err != nil {
		t.Fatal(err)
	}
	v, err := binding.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func encode(t *testing.T, binding *codec.Binding, v any) []byte {
	t.Helper()
	value, err := binding.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

type textsFile struct {
	About            string `json:"about"`
	ExpectedVersions struct {
		Accepted []struct {
			Text    string          `json:"text"`
			Normal  string          `json:"normal"`
			HoldsAt []event.Version `json:"holdsAt"`
		} `json:"accepted"`
		Tried   []event.Version `json:"tried"`
		Refused []string        `json:"refused"`
	} `json:"expectedVersions"`
	Times struct {
		Accepted []struct {
			Text       string `json:"text"`
			Normal     string `json:"normal"`
			UnixMicros int64  `json:"unixMicros"`
		} `json:"accepted"`
		Refused []string `json:"refused"`
	} `json:"times"`
	ReplyTo struct {
		Accepted []struct {
			Text      string `json:"text"`
			Topic     string `json:"topic"`
			Partition int32  `json:"partition"`
		} `json:"accepted"`
		Refused []string `json:"refused"`
	} `json:"replyTo"`
	Origins struct {
		Accepted []struct {
			Text      string `json:"text"`
			TopicID   string `json:"topicId"`
			Partition int32  `json:"partition"`
			Offset    int64  `json:"offset"`
		} `json:"accepted"`
		Refused []string `json:"refused"`
	} `json:"origins"`
}

// request parses a request that has one more header than it must.
func request(header, text string) (event.Request, error) {
	return event.ParseRequest([]event.Header{
		{Key: event.HeaderID, Value: []byte("r")}, {Key: event.HeaderType, Value: []byte("invoice.Issued")}, {Key: header, Value: []byte(text)},
	})
}

func wantRefused(t *testing.T, header string, texts []string) {
	t.Helper()
	for _, text := range texts {
		var fault *event.HeaderError
		if _, err := request(header, text); !errors.As(err, &fault) || fault.Header != header {
			t.Errorf("%s: %q: got error %v, want a fault of that header", header, text, err)
		}
	}
	if len(texts) == 0 {
		t.Errorf("%s: no refused vector", header)
	}
}

func TestExpectedVersionsAreRead(t *testing.T) {
	t.Parallel()
	f := read[textsFile](t, "texts.json").ExpectedVersions
	for _, v := range f.Accepted {
		r, err := request(event.HeaderExpectedVersion, v.Text)
		if err != nil {
			t.Errorf("%q: %v", v.Text, err)
			continue
		}
		if got := r.Expected.String(); got != v.Normal {
			t.Errorf("%q: got %q, want %q", v.Text, got, v.Normal)
		}
		for _, version := range f.Tried {
			if got, want := r.Expected.Holds(version), slices.Contains(v.HoldsAt, version); got != want {
				t.Errorf("%q holds at version %d: got %t, want %t", v.Text, version, got, want)
			}
		}
	}
	wantRefused(t, event.HeaderExpectedVersion, f.Refused)
}

func TestTimesAreRead(t *testing.T) {
	t.Parallel()
	f := read[textsFile](t, "texts.json").Times
	for _, v := range f.Accepted {
		r, err := request(event.HeaderTime, v.Text)
		if err != nil {
			t.Errorf("%q: %v", v.Text, err)
			continue
		}
		if got := event.FormatTime(r.Time); got != v.Normal {
			t.Errorf("%q: got %q, want %q", v.Text, got, v.Normal)
		}
		if got := r.Time.UnixMicro(); got != v.UnixMicros {
			t.Errorf("%q: got %d µs, want %d", v.Text, got, v.UnixMicros)
		}
	}
	wantRefused(t, event.HeaderTime, f.Refused)
}

func TestReplyToAndOriginsAreRead(t *testing.T) {
	t.Parallel()
	f := read[textsFile](t, "texts.json")
	for _, v := range f.ReplyTo.Accepted {
		r, err := request(event.HeaderReplyTo, v.Text)
		if want := (event.ReplyTo{Topic: v.Topic, Partition: v.Partition}); err != nil || r.ReplyTo != want {
			t.Errorf("%q: got %+v and error %v, want %+v", v.Text, r.ReplyTo, err, want)
		}
	}
	wantRefused(t, event.HeaderReplyTo, f.ReplyTo.Refused)
	for _, v := range f.Origins.Accepted {
		r, err := request(event.HeaderOrigin, v.Text)
		want := event.Origin{TopicID: topicID(t, v.TopicID), Partition: v.Partition, Offset: v.Offset}
		if err != nil || r.Origin == nil || *r.Origin != want || want.String() != v.Text {
			t.Errorf("%q: got %v and error %v, want %v", v.Text, r.Origin, err, want)
		}
	}
	wantRefused(t, event.HeaderOrigin, f.Origins.Refused)
}

func TestReadersTellVoidRecords(t *testing.T) {
	t.Parallel()
	type file struct {
		About   string `json:"about"`
		Vectors []struct {
			Name    string `json:"name"`
			Records []struct {
				ProducerID int64  `json:"producerId"`
				Epoch      int16  `json:"epoch"`
				Control    string `json:"control"`
				Verdict    string `json:"verdict"`
			} `json:"records"`
		} `json:"vectors"`
	}
	words := map[event.Verdict]string{event.VerdictEvent: "event", event.VerdictControl: "control", event.VerdictVoid: "void"}
	for _, v := range read[file](t, "lineage.json").Vectors {
		var reader event.Lineage
		for offset, r := range v.Records {
			var headers []event.Header
			if r.Control != "" {
				headers = []event.Header{{Key: event.HeaderControl, Value: []byte(r.Control)}}
			}
			if got := words[reader.Judge(r.ProducerID, r.Epoch, headers)]; got != r.Verdict {
				t.Errorf("%s, record %d: got %s, want %s", v.Name, offset, got, r.Verdict)
			}
		}
	}
}

func TestLettersTellWhatHappened(t *testing.T) {
	t.Parallel()
	type file struct {
		About   string `json:"about"`
		Vectors []struct {
			Consumer      string            `json:"consumer"`
			Topic         string            `json:"topic"`
			TopicID       string            `json:"topicId"`
			Partition     int32             `json:"partition"`
			Offset        int64             `json:"offset"`
			Stage         deadletter.Stage  `json:"stage"`
			Class         string            `json:"class"`
			Message       string            `json:"message"`
			Attempts      int               `json:"attempts"`
			FirstAt       time.Time         `json:"firstAt"`
			Reason        deadletter.Reason `json:"reason"`
			RecordHeaders [][2]string       `json:"recordHeaders"`
			Headers       [][2]string       `json:"headers"`
		} `json:"vectors"`
	}
	for _, v := range read[file](t, "letter.json").Vectors {
		rec := &kgo.Record{Topic: v.Topic, Partition: v.Partition, Offset: v.Offset}
		for _, h := range v.RecordHeaders {
			rec.Headers = append(rec.Headers, event.Header{Key: h[0], Value: []byte(h[1])})
		}
		letter := deadletter.New(v.Consumer, topicID(t, v.TopicID), rec, deadletter.Parked(v.Stage, v.Class, errors.New(v.Message)), v.Attempts, v.FirstAt)
		if letter.Reason != v.Reason {
			t.Errorf("reason: got %s, want %s", letter.Reason, v.Reason)
		}
		var got [][2]string
		for _, h := range letter.Headers() {
			got = append(got, [2]string{h.Key, string(h.Value)})
		}
		if !slices.Equal(got, v.Headers) {
			t.Errorf("headers:\n got %q\nwant %q", got, v.Headers)
		}
	}
}

func TestPartitionsAreMurmur2(t *testing.T) {
	t.Parallel()
	type file struct {
		About           string  `json:"about"`
		PartitionCounts []int32 `json:"partitionCounts"`
		Vectors         []struct {
			Text       string  `json:"text"`
			KeyHex     string  `json:"keyHex"`
			Murmur2    int32   `json:"murmur2"`
			Partitions []int32 `json:"partitions"`
		} `json:"vectors"`
	}
	f := read[file](t, "murmur2.json")
	for _, v := range f.Vectors {
		key := unhex(t, v.KeyHex)
		if got := int32(topics.Murmur2(key)); got != v.Murmur2 {
			t.Errorf("murmur2 of %s: got %d, want %d", v.KeyHex, got, v.Murmur2)
		}
		for i, n := range f.PartitionCounts {
			if got := topics.Partition(key, n); got != v.Partitions[i] {
				t.Errorf("partition of %s among %d: got %d, want %d", v.KeyHex, n, got, v.Partitions[i])
			}
		}
	}
}

// TestEveryFileIsChecked fails when a file of vectors has no test.
func TestEveryFileIsChecked(t *testing.T) {
	t.Parallel()
	checked := map[string]string{
		"framing.json": "here", "ids.json": "here", "append.json": "here", "append.v2.json": "here", "append-batch.json": "here", "reply.json": "here", "texts.json": "here",
		"lineage.json": "here", "letter.json": "here", "murmur2.json": "here",
		"hash.json": "internal/engine", "headers.json": "internal/engine",
	}
	found, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Sorted(maps.Keys(checked)); !slices.Equal(found, want) {
		t.Errorf("files of vectors: got %q, want %q", found, want)
	}
}
