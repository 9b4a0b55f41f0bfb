package codec

import (
	"context"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
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
			{Type: "order.Placed", ID: "e1", Time: 1_700_000_000_000_000, SchemaID: 7, Data: []byte{1, 2}},
			{Type: "order.Paid", SchemaID: 8, Data: []byte{}},
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
