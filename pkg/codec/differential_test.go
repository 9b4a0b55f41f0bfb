package codec

import (
	"bytes"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

// limitGoavro keeps the oracle alive on mutated bytes. Its limits are process-wide variables.
var limitGoavro = sync.OnceFunc(func() {
	goavro.MaxBlockCount = 1 << 12
	goavro.MaxBlockSize = 1 << 16
})

// differentialSchemas are representative, and free of what the two libraries mean to do
// differently: a union with both string and enum, and items without bytes.
func differentialSchemas(t testing.TB) map[string]*Schema {
	t.Helper()
	schemas := map[string]*Schema{}
	for name, text := range map[string]string{
		"order": orderPlacedV1,
		"primitives": xRecord(`{"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":"long"},{"name":"f","type":"float"},
			{"name":"d","type":"double"},{"name":"y","type":"bytes"},{"name":"s","type":"string"},{"name":"x","type":{"type":"fixed","name":"X","size":5}},{"name":"n","type":"null"}`),
		"unions": xRecord(`{"name":"u","type":["null","boolean","int","long","double","string","bytes",{"type":"array","items":"long"},{"type":"map","values":"string"},
			{"type":"record","name":"Inner","fields":[{"name":"a","type":["null","int"]}]}]}`),
		"recursive": xRecord(`{"name":"v","type":"int"},{"name":"next","type":["null","T"]},{"name":"kids","type":{"type":"array","items":"T"}}`),
		"nested":    xRecord(`{"name":"m","type":{"type":"map","values":{"type":"array","items":{"type":"map","values":["null","string"]}}}}`),
		"logical": xRecord(`{"name":"a","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"b","type":{"type":"long","logicalType":"timestamp-millis"}},
			{"name":"c","type":{"type":"int","logicalType":"date"}},{"name":"d","type":{"type":"long","logicalType":"time-micros"}},
			{"name":"e","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":4}},
			{"name":"f","type":["null",{"type":"long","logicalType":"timestamp-micros"}]}`),
		"enums": xRecord(`{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B","C"],"default":"A"}},{"name":"es","type":{"type":"array","items":"E"}}`),
	} {
		schemas[name] = compile(t, text)
	}
	for file, reg := range shipped(t) {
		schemas[file] = reg.Schema
	}
	return schemas
}

// generator makes random values in goavro's native form: unions as map{branch: value}.
type generator struct{ *rand.Rand }

func (g generator) value(n *node, depthLeft int) any {
	switch n.kind {
	case kindNull:
		return nil
	case kindBoolean:
		return g.IntN(2) == 1
	case kindInt:
		return g.int(n)
	case kindLong:
		return g.long(n)
	case kindFloat:
		return g.Float32()*200 - 100
	case kindDouble:
		return g.NormFloat64() * 1e6
	case kindBytes:
		if n.rule == ruleDecimal {
			return big.NewRat(g.Int64N(1e17)-5e16, 10_000)
		}
		return g.bytes(g.IntN(12))
	case kindString:
		return g.text()
	case kindFixed:
		return g.bytes(n.size)
	case kindEnum:
		return n.symbols[g.IntN(len(n.symbols))]
	case kindUnion:
		i := g.IntN(len(n.children))
		if depthLeft <= 0 {
			i = n.shortestBranch()
		}
		if n.children[i].kind == kindNull {
			return nil
		}
		return map[string]any{branchName(n.children[i]): g.value(n.children[i], depthLeft-1)}
	case kindArray:
		items := []any{}
		for range g.count(depthLeft) {
			items = append(items, g.value(n.item, depthLeft-1))
		}
		return items
	}
	entries := map[string]any{}
	if n.kind == kindMap {
		for range g.count(depthLeft) {
			entries[g.text()] = g.value(n.item, depthLeft-1)
		}
		return entries
	}
	for i, f := range n.fields {
		entries[f.name] = g.value(n.children[i], depthLeft-1)
	}
	return entries
}

func (g generator) count(depthLeft int) int {
	if depthLeft <= 0 {
		return 0
	}
	return g.IntN(4)
}

func (g generator) int(n *node) any {
	if n.logical == "date" {
		return time.Unix((g.Int64N(n.high-n.low)+n.low)*86400, 0).UTC()
	}
	return int32(g.Uint32())
}

func (g generator) long(n *node) any {
	switch n.logical {
	case "timestamp-millis":
		return time.UnixMilli(g.Int64N(4e12)).UTC()
	case "timestamp-micros":
		return time.UnixMicro(g.Int64N(4e15)).UTC()
	case "time-micros":
		return time.Duration(g.Int64N(n.high)) * time.Microsecond
	}
	return int64(g.Uint64()) >> g.IntN(64)
}

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g generator) text() string {
	letters := []rune("abcdefgäß世🙂 \x00")
	out := make([]rune, g.IntN(10))
	for i := range out {
		out[i] = letters[g.IntN(len(letters))]
	}
	return string(out)
}

// branchName is how goavro names a branch of a union.
func branchName(n *node) string {
	switch {
	case n.kind.named():
		return n.name
	case n.logical != "":
		return n.kind.String() + "." + n.logical
	}
	return n.kind.String()
}

// same compares two decoded values by meaning: *big.Rat by value, times by instant.
func same(a, b any) bool {
	switch x := a.(type) {
	case *big.Rat:
		y, ok := b.(*big.Rat)
		return ok && x.Cmp(y) == 0
	case time.Time:
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, same)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, same)
	case float32:
		y, ok := b.(float32)
		return ok && (x == y || x != x && y != y)
	case float64:
		y, ok := b.(float64)
		return ok && (x == y || x != x && y != y)
	}
	return reflect.DeepEqual(a, b)
}

// ourTagged decodes with unions as goavro gives them.
func ourTagged(s *Schema, body []byte) (any, error) {
	var v any
	_, err := s.avro.Decode(body, &v, avro.TaggedUnions(), avro.TagLogicalTypes())
	return v, err
}

func seeded(name string) generator {
	var seed uint64 = 1469598103934665603
	for _, c := range name {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return generator{rand.New(rand.NewPCG(seed, 42))}
}

func oracle(t testing.TB, s *Schema) *goavro.Codec {
	t.Helper()
	limitGoavro()
	c, err := goavro.NewCodec(s.Text())
	if err != nil {
		t.Fatalf("goavro does not take the schema: %v", err)
	}
	return c
}

func TestBothLibrariesMeanTheSameValues(t *testing.T) {
	t.Parallel()
	const valuesPerSchema = 300
	for name, s := range differentialSchemas(t) {
		g, theirs := seeded(name), oracle(t, s)
		for i := range valuesPerSchema {
			want := g.value(s.root, 5)
			body, err := theirs.BinaryFromNative(nil, want)
			if err != nil {
				t.Fatalf("%s, value %d: goavro does not write %v: %v", name, i, want, err)
			}
			if err := s.Check(body, Limits{}); err != nil {
				t.Fatalf("%s, value %d: %v\n% x", name, i, err, body)
			}
			ours, err := ourTagged(s, body)
			if err != nil || !same(ours, want) {
				t.Fatalf("%s, value %d: goavro wrote %v, we read %v, %v", name, i, want, ours, err)
			}
			again, err := s.avro.AppendEncode(nil, ours)
			if err != nil {
				t.Fatalf("%s, value %d: we do not write %v: %v", name, i, ours, err)
			}
			if err := s.Check(again, Limits{}); err != nil {
				t.Fatalf("%s, value %d: the guard refuses what we write: %v\n% x", name, i, err, again)
			}
			back, rest, err := theirs.NativeFromBinary(again)
			if err != nil || len(rest) > 0 || !same(back, want) {
				t.Fatalf("%s, value %d: we wrote %v, goavro reads %v, %v", name, i, want, back, err)
			}
		}
	}
}

// stricter lists what our guard refuses and goavro takes, by the guard's words.
var stricter = []string{
	"integer is padded with zero bytes", "block size does not match", "block size beyond the end", "string is not UTF-8",
	"out of range for timestamp-", "out of range for date", "out of range for time-", "decimal has more bytes",
	"integer out of range for int", "integer has more than 64 bits", "too many",
}

// laxer lists what our guard takes and goavro refuses, by goavro's words.
var laxer = []string{"duplicate key", "MaxBlockCount", "MaxBlockSize"}

func listed(list []string, err error) bool {
	return slices.ContainsFunc(list, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// verdicts asks both about one body and says what differs beyond the two lists, or "".
func verdicts(s *Schema, theirs *goavro.Codec, body []byte) string {
	value, rest, theirErr := theirs.NativeFromBinary(body)
	if theirErr == nil && len(rest) > 0 {
		theirErr = fmt.Errorf("%d bytes left", len(rest))
	}
	ourErr := s.Check(body, Limits{})
	switch {
	case ourErr != nil && theirErr != nil:
		return ""
	case ourErr != nil && !listed(stricter, ourErr):
		return fmt.Sprintf("we refuse (%v), goavro reads %v", ourErr, value)
	case ourErr != nil:
		return ""
	}
	ours, err := ourTagged(s, body)
	switch {
	case err != nil:
		return fmt.Sprintf("the guard takes it, the library refuses: %v", err)
	case theirErr != nil && !listed(laxer, theirErr):
		return fmt.Sprintf("goavro refuses (%v), we read %v", theirErr, ours)
	case theirErr == nil && !same(ours, value):
		return fmt.Sprintf("we read %v, goavro reads %v", ours, value)
	}
	return ""
}

func TestBothLibrariesRefuseTheSameBytes(t *testing.T) {
	t.Parallel()
	const mutantsPerSchema = 4000
	for name, s := range differentialSchemas(t) {
		g, theirs := seeded(name), oracle(t, s)
		accepted := 0
		for i := range mutantsPerSchema {
			body, err := theirs.BinaryFromNative(nil, g.value(s.root, 3))
			if err != nil {
				t.Fatal(err)
			}
			body = g.mutate(body)
			if s.Check(body, Limits{}) == nil {
				accepted++
			}
			if difference := verdicts(s, theirs, body); difference != "" {
				t.Fatalf("%s, mutant %d, % x: %s", name, i, body, difference)
			}
		}
		t.Logf("%s: %d of %d mutants accepted", name, accepted, mutantsPerSchema)
		if accepted == mutantsPerSchema {
			t.Errorf("%s: no mutant was refused, so nothing was compared", name)
		}
	}
}

// mutate changes one to three places of a body.
func (g generator) mutate(body []byte) []byte {
	body = bytes.Clone(body)
	for range 1 + g.IntN(3) {
		at := g.IntN(len(body) + 1)
		switch op := g.IntN(4); {
		case op == 0 || at == len(body):
			body = slices.Insert(body, at, byte(g.Uint32()))
		case op == 1:
			body = slices.Delete(body, at, at+1)
		case op == 2:
			body[at] ^= 1 << g.IntN(8)
		default:
			body[at] = byte(g.Uint32())
		}
	}
	if g.IntN(5) == 0 {
		body = body[:g.IntN(len(body)+1)]
	}
	return body
}
