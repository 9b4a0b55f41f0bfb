package codec

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
	"pgregory.net/rapid"
)

var schemaFile = regexp.MustCompile(`^([a-z0-9_]+)/([A-Za-z]+)\.v([0-9]+)\.avsc$`)

// shipped returns every schema that the repository ships, by file.
func shipped(t testing.TB) map[string]*Registered {
	t.Helper()
	files, err := fs.Glob(avro.Files, "*/*.avsc")
	if err != nil || len(files) < 2 {
		t.Fatalf("schemas/avro holds %v, %v; want at least our two envelopes", files, err)
	}
	regs := map[string]*Registered{}
	for i, file := range files {
		match := schemaFile.FindStringSubmatch(file)
		if match == nil {
			t.Errorf("%s: want <category>/<Name>.v<version>.avsc", file)
			continue
		}
		text, err := avro.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		version, err := strconv.Atoi(match[3])
		if err != nil {
			t.Fatal(err)
		}
		if regs[file], err = RegisterText(int32(i+1), match[1]+"."+match[2], version, "", string(text)); err != nil {
			t.Errorf("%s: %v", path.Base(file), err)
			delete(regs, file)
		}
	}
	return regs
}

func TestShippedSchemasAreFit(t *testing.T) {
	t.Parallel()
	for file, reg := range shipped(t) {
		if faults := Lint(reg.Schema); len(faults) > 0 {
			t.Errorf("%s: %v", file, faults)
		}
		for variant := range reg.Schema.variants() {
			if err := SecondOpinion(reg.Schema, appendSample(nil, reg.Schema.root, variant, sampleDepth)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func envelopes(t testing.TB) *Codec {
	t.Helper()
	var regs []*Registered
	for _, reg := range shipped(t) {
		regs = append(regs, reg)
	}
	return New(NewStaticReader(regs...), Config{})
}

func TestEnvelopesBindAndComeBack(t *testing.T) {
	t.Parallel()
	c := envelopes(t)
	for name, row := range map[string]struct {
		def  TypeDef
		want any
	}{
		"append": {AppendDef(), AppendEnvelope{Events: []AppendItem{
			{Type: "order.Placed", ID: "e1", Time: 1_700_000_000_000_000, SchemaID: 7, Data: []byte{1, 2}, Metadata: map[string]string{"tenant": "eu"}},
			{Type: "order.Paid", SchemaID: 8, Data: []byte{}, Metadata: map[string]string{}},
		}}},
		"batch": {AppendBatchDef(), AppendBatch{Requests: []AppendBatchRequest{
			{Category: "order", StreamID: "o1", ID: "r1", Expected: "none", Events: []AppendItem{{Type: "order.Placed", SchemaID: 7, Data: []byte{1}, Metadata: map[string]string{}}}},
			{Category: "order", StreamID: "o2", Events: []AppendItem{}},
		}}},
		"reply": {ReplyDef(), Reply{
			RequestID: "r1", Outcome: "conflict", Category: "order", StreamID: "o1", ActualVersion: 3,
			Partition: -1, Offset: -1, Code: "c", Message: "m", Errors: []string{"e"}, Attempt: "2",
		}},
	} {
		b := bind(t, c, row.def)
		if b.Registered().Kind != event.KindSystem {
			t.Errorf("%s: kind %s, want system", name, b.Registered().Kind)
		}
		value, err := b.Append(nil, row.want)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := c.Inspect(context.Background(), row.def.Name, value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := b.Decode(p); err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, row.want)
		}
	}
}

func TestAnItemWithoutATimeHasTheRequests(t *testing.T) {
	t.Parallel()
	request := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	if got := (AppendItem{}).BusinessTime(request); !got.Equal(request) {
		t.Errorf("without: got %s, want %s", got, request)
	}
	own := request.Add(time.Hour)
	if got := (AppendItem{Time: own.UnixMicro()}).BusinessTime(request); !got.Equal(own) {
		t.Errorf("with: got %s, want %s", got, own)
	}
}

// A registry that has version 1 takes version 2, whatever compatibility it asks for, and a program
// of version 2 reads what clients of version 1 send.
func TestAnAppendOfVersion1IsRead(t *testing.T) {
	t.Parallel()
	c := envelopes(t)
	v1, v2 := shipped(t)["foldstream/Append.v1.avsc"], shipped(t)["foldstream/Append.v2.avsc"]
	if faults := append(CheckCompatible(v2.Schema, v1.Schema), CheckCompatible(v1.Schema, v2.Schema)...); len(faults) > 0 {
		t.Errorf("versions 1 and 2: got faults %v, want none in either direction", faults)
	}
	old := bind(t, c, TypeDef{Name: TypeAppend, Version: 1})
	value, err := old.Append(nil, map[string]any{"events": []any{map[string]any{
		"type": "order.Placed", "id": "e1", "time": int64(5), "schemaId": int32(7), "data": []byte{1, 2},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Inspect(context.Background(), TypeAppend, value)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bind(t, c, AppendDef()).Decode(p)
	if err != nil {
		t.Fatal(err)
	}
	item := got.(AppendEnvelope).Events[0]
	if item.Type != "order.Placed" || item.ID != "e1" || item.Time != 5 || item.SchemaID != 7 || len(item.Metadata) != 0 {
		t.Errorf("got %+v, want what version 1 said, without metadata", item)
	}
}

func TestEqualAppendsHaveEqualBytes(t *testing.T) {
	t.Parallel()
	b := bind(t, envelopes(t), AppendDef())
	var first []byte
	for range 20 {
		metadata := map[string]string{}
		for _, name := range []string{"d", "a", "c", "b"} {
			metadata[name] = name
		}
		value, err := b.Append(nil, AppendEnvelope{Events: []AppendItem{{Type: "order.Placed", Data: []byte{}, Metadata: metadata}}})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = value
		}
		if !bytes.Equal(value, first) {
			t.Fatalf("got %x, then %x, want the same bytes", first, value)
		}
	}
}

func TestMetadataThatCannotBeHeadersIsNamed(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		metadata map[string]string
		want     string // the header at fault, "" for none
	}{
		"none":                          {nil, ""},
		"sound":                         {map[string]string{"tenant": "eu", "ce-like": "", "dlq": "", "fs": ""}, ""},
		"a value of the greatest size":  {map[string]string{"note": strings.Repeat("x", event.HeaderValueBytesMax)}, ""},
		"a value that is too long":      {map[string]string{"note": strings.Repeat("x", event.HeaderValueBytesMax+1)}, "note"},
		"the second of two":             {map[string]string{"a": "", "ce_id": ""}, "ce_id"},
		"a line break in a name":        {map[string]string{"a\nb": ""}, "a\nb"},
		"a name that is not UTF-8":      {map[string]string{"a\xff": ""}, "a\xff"},
		"traceparent":                   {map[string]string{"traceparent": ""}, "traceparent"},
		"content-type":                  {map[string]string{"content-type": ""}, "content-type"},
		"a header that belongs to dlq.": {map[string]string{"dlq.id": ""}, "dlq.id"},
	} {
		err := CheckMetadata(row.metadata)
		var fault *event.HeaderError
		errors.As(err, &fault)
		if row.want == "" && err != nil || row.want != "" && (fault == nil || fault.Header != row.want) {
			t.Errorf("%s: got %v, want a fault of %q", name, err, row.want)
		}
	}
}

// The reply's own encoder writes what its schema asks for, and nothing else.
func TestARepliesBodyIsThatOfItsSchema(t *testing.T) {
	t.Parallel()
	b := bind(t, envelopes(t), ReplyDef())
	outcomes := []string{"unknown", "accepted", "duplicate", "conflict", "rejected", "invalid"}
	text := rapid.String()
	rapid.Check(t, func(t *rapid.T) {
		r := Reply{
			RequestID: text.Draw(t, "requestId"), Outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome"), Category: text.Draw(t, "category"),
			StreamID: text.Draw(t, "streamId"), FirstVersion: rapid.Int64().Draw(t, "first"), LastVersion: rapid.Int64().Draw(t, "last"),
			ActualVersion: rapid.Int64().Draw(t, "actual"), Partition: rapid.Int32().Draw(t, "partition"), Offset: rapid.Int64().Draw(t, "offset"),
			Code: text.Draw(t, "code"), Message: text.Draw(t, "message"), Errors: rapid.SliceOfN(text, 0, 5).Draw(t, "errors"), Attempt: text.Draw(t, "attempt"),
		}
		want, err := b.Append(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.AppendBody(want[:ConfluentHeaderBytes:ConfluentHeaderBytes]); !bytes.Equal(got, want) {
			t.Fatalf("%+v:\n got %x\nwant %x", r, got, want)
		}
	})
}

func TestAReplyIsReadableWhateverItsTexts(t *testing.T) {
	t.Parallel()
	c := envelopes(t)
	r := Reply{Outcome: "no outcome", Code: "a\xffb"}
	p, err := c.Inspect(context.Background(), TypeReply, r.AppendBody(AppendConfluent(nil, bind(t, c, ReplyDef()).Registered().ID)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := bind(t, c, ReplyDef()).Decode(p)
	if err != nil {
		t.Fatal(err)
	}
	if r := got.(Reply); r.Outcome != "unknown" || r.Code != "a\uFFFDb" {
		t.Errorf("got outcome %q and code %q, want unknown and the code with U+FFFD", r.Outcome, r.Code)
	}
}
