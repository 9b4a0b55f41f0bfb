package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The test vectors of test/vectors that only the engine can show: they were not written by this
// code, see the README there.

func readVectors[T any](t *testing.T, name string) T {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "test", "vectors", name))
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

func unhexVector(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorsOfTheCommandHash(t *testing.T) {
	t.Parallel()
	type file struct {
		About   string `json:"about"`
		Vectors []struct {
			Name        string `json:"name"`
			Type        string `json:"type"`
			Header      string `json:"expectedVersionHeader"`
			Expected    string `json:"expectedVersion"`
			Fingerprint string `json:"fingerprint"`
			Payload     string `json:"payload"`
			Hashed      string `json:"hashed"`
			Hash        string `json:"hash"`
		} `json:"vectors"`
	}
	var scratch []byte
	for _, v := range readVectors[file](t, "hash.json").Vectors {
		expected, err := event.ParseExpected(v.Header)
		if err != nil || expected.String() != v.Expected {
			t.Errorf("%s: %q: got %q and error %v, want %q", v.Name, v.Header, expected, err, v.Expected)
		}
		fingerprint, err := strconv.ParseUint(v.Fingerprint, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		var hash [16]byte
		hash, scratch = contentHash(scratch, v.Type, expected.String(), codec.Fingerprint(fingerprint), unhexVector(t, v.Payload))
		if got := hex.EncodeToString(scratch); got != v.Hashed {
			t.Errorf("%s: hashed: got %s, want %s", v.Name, got, v.Hashed)
		}
		if got := hex.EncodeToString(hash[:]); got != v.Hash {
			t.Errorf("%s: got %s, want %s", v.Name, got, v.Hash)
		}
	}
}

type vectorRecord struct {
	Key     string      `json:"key"`
	Value   string      `json:"value"`
	Headers [][2]string `json:"headers"`
}

func (r vectorRecord) record(t *testing.T) *kgo.Record {
	t.Helper()
	return &kgo.Record{Key: []byte(r.Key), Value: unhexVector(t, r.Value), Headers: headersOf(r.Headers)}
}

func headersOf(pairs [][2]string) []event.Header {
	var headers []event.Header
	for _, h := range pairs {
		headers = append(headers, event.Header{Key: h[0], Value: []byte(h[1])})
	}
	return headers
}

type headersFile struct {
	About string `json:"about"`
	Place struct {
		Namespace       string `json:"namespace"`
		Category        string `json:"category"`
		CommandsTopic   string `json:"commandsTopic"`
		CommandsTopicID string `json:"commandsTopicId"`
		Partitions      int32  `json:"partitions"`
		Partition       int32  `json:"partition"`
		Offset          int64  `json:"offset"`
		TimestampMillis int64  `json:"timestampMillis"`
	} `json:"place"`
	Vectors []struct {
		Name    string         `json:"name"`
		Request vectorRecord   `json:"request"`
		Events  []vectorRecord `json:"events"`
		Reply   *struct {
			Topic     string      `json:"topic"`
			Partition int32       `json:"partition"`
			Key       string      `json:"key"`
			Headers   [][2]string `json:"headers"`
		} `json:"reply"`
	} `json:"vectors"`
	Refused []struct {
		Name    string      `json:"name"`
		Headers [][2]string `json:"headers"`
		Header  string      `json:"header"`
	} `json:"refused"`
}

func TestVectorsOfARequestAndWhatItBecomes(t *testing.T) {
	t.Parallel()
	file := readVectors[headersFile](t, "headers.json")
	for _, v := range file.Vectors {
		o := vectorOwner(t, file)
		rec := v.Request.record(t)
		rec.Topic, rec.Partition, rec.Offset = file.Place.CommandsTopic, file.Place.Partition, file.Place.Offset
		rec.Timestamp = time.UnixMilli(file.Place.TimestampMillis)
		c := &command{record: rec}
		if c.request, c.faults = event.ParseRequest(rec.Headers); c.faults != nil {
			t.Errorf("%s: %v", v.Name, c.faults)
			continue
		}
		verdict, err := o.evaluate(c)
		if err != nil || verdict.kind != verdictAppend {
			t.Errorf("%s: got verdict %+v and error %v, want events", v.Name, verdict, err)
			continue
		}
		wantRecords(t, v.Name, o.recordsOf(c, verdict, 1), v.Events)
		if v.Reply == nil {
			if c.request.ReplyTo.Topic != "" {
				t.Errorf("%s: got an answer to %s, want none", v.Name, c.request.ReplyTo)
			}
			continue
		}
		if want := (event.ReplyTo{Topic: v.Reply.Topic, Partition: v.Reply.Partition}); c.request.ReplyTo != want {
			t.Errorf("%s: reply to: got %s, want %s", v.Name, c.request.ReplyTo, want)
		}
		key := c.request.ReplyKey
		if key == nil {
			key = []byte(c.request.ID)
		}
		if string(key) != v.Reply.Key {
			t.Errorf("%s: reply key: got %q, want %q", v.Name, key, v.Reply.Key)
		}
		box := &outbox{source: []byte("/" + file.Place.Namespace + "/ingest"), clock: time.Now}
		answered := slices.DeleteFunc(box.replyHeaders(nil, &arena{}, &c.request, v.Request.Key), func(h event.Header) bool { return h.Key == event.HeaderTime })
		wantHeaders(t, v.Name+", reply", answered, v.Reply.Headers)
	}
}

func TestVectorsOfRefusedHeaders(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors[headersFile](t, "headers.json").Refused {
		var fault *event.HeaderError
		if _, err := event.ParseRequest(headersOf(v.Headers)); !errors.As(err, &fault) || fault.Header != v.Header {
			t.Errorf("%s: got error %v, want a fault of header %s", v.Name, err, v.Header)
		}
	}
}

func wantRecords(t *testing.T, name string, got []appender.Record, want []vectorRecord) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d events, want %d", name, len(got), len(want))
		return
	}
	for i := range got {
		if string(got[i].Key) != want[i].Key {
			t.Errorf("%s, event %d: key: got %q, want %q", name, i, got[i].Key, want[i].Key)
		}
		if text := hex.EncodeToString(got[i].Value); text != want[i].Value {
			t.Errorf("%s, event %d: value: got %s, want %s", name, i, text, want[i].Value)
		}
		wantHeaders(t, name+", event "+strconv.Itoa(i), got[i].Headers, want[i].Headers)
	}
}

// wantHeaders compares without regard to the order, which has no meaning.
func wantHeaders(t *testing.T, name string, got []event.Header, want [][2]string) {
	t.Helper()
	var have []string
	for _, h := range got {
		have = append(have, h.Key+": "+string(h.Value))
	}
	var wanted []string
	for _, h := range want {
		wanted = append(wanted, h[0]+": "+h[1])
	}
	slices.Sort(have)
	slices.Sort(wanted)
	if !slices.Equal(have, wanted) {
		t.Errorf("%s: headers:\n got %q\nwant %q", name, have, wanted)
	}
}

// vectorOwner is an owner of the vectors' partition that has taken over and seen nothing yet.
func vectorOwner(t *testing.T, file headersFile) *owner {
	t.Helper()
	cdc := codec.New(vectorRegistry(t), codec.Config{})
	category, err := bindCategory(context.Background(), file.Place.Namespace, Category{Name: file.Place.Category}, cdc)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := cdc.Bind(context.Background(), codec.AppendDef())
	if err != nil {
		t.Fatal(err)
	}
	id, err := event.ParseTopicID(file.Place.CommandsTopicID)
	if err != nil {
		t.Fatal(err)
	}
	// The vectors' dedupe-until is some hours ahead of this clock.
	now := time.UnixMilli(file.Place.TimestampMillis)
	return &owner{
		category: category, namespace: file.Place.Namespace, partition: file.Place.Partition, partitions: file.Place.Partitions,
		topics: ownedTopics{commands: file.Place.CommandsTopic, commandsID: id},
		log:    slog.New(slog.DiscardHandler), clock: func() time.Time { return now }, budget: &stateBudget{bytesMax: 1 << 20},
		ctx: context.Background(), table: newStreamTable(), origins: map[originKey]int64{}, highest: -1,
		appendBinding: envelope, batchBytesMax: 900 << 10,
	}
}

// vectorRegistry has the schemas that framing.json describes.
func vectorRegistry(t *testing.T) *codec.StaticReader {
	t.Helper()
	type file struct {
		Schemas []struct {
			Type    string     `json:"type"`
			Version int        `json:"version"`
			Kind    event.Kind `json:"kind"`
			ID      int32      `json:"id"`
			Path    string     `json:"path"`
		} `json:"schemas"`
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "test", "vectors", "framing.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	var registered []*codec.Registered
	for _, s := range f.Schemas {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(s.Path)))
		if err != nil {
			t.Fatal(err)
		}
		reg, err := codec.RegisterText(s.ID, s.Type, s.Version, s.Kind, string(text))
		if err != nil {
			t.Fatal(err)
		}
		registered = append(registered, reg)
	}
	return codec.NewStaticReader(registered...)
}
