package codec

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// schemaMaker draws a random schema's text.
type schemaMaker struct {
	*rapid.T
	records []string // defined so far, to be referred to
	names   int
}

var leafTypes = []string{
	`"null"`, `"boolean"`, `"int"`, `"long"`, `"float"`, `"double"`, `"bytes"`, `"string"`, tUUID, tDate, tDecimal, tBig,
	`{"type":"int","logicalType":"time-millis"}`, `{"type":"long","logicalType":"time-micros"}`,
	`{"type":"long","logicalType":"timestamp-millis"}`, `{"type":"long","logicalType":"timestamp-micros"}`, `{"type":"long","logicalType":"timestamp-nanos"}`,
	`{"type":"long","logicalType":"local-timestamp-millis"}`, `{"type":"long","logicalType":"local-timestamp-micros"}`, `{"type":"long","logicalType":"local-timestamp-nanos"}`,
	`{"type":"bytes","logicalType":"decimal","precision":5,"scale":0}`,
	// Not known to Avro: the number alone.
	`{"type":"long","logicalType":"latency-millis"}`, `{"type":"long","logicalType":"time-nanos"}`,
}

// named are leaves that need a name of their own.
var namedTypes = []string{
	`{"type":"enum","name":"%s","symbols":["A","b","C_3"],"default":"A"}`, `{"type":"fixed","name":"%s","size":3}`,
	`{"type":"fixed","name":"%s","size":16,"logicalType":"uuid"}`, `{"type":"fixed","name":"%s","size":12,"logicalType":"duration"}`,
	`{"type":"fixed","name":"%s","size":9,"logicalType":"decimal","precision":20,"scale":6}`,
}

func (m *schemaMaker) name(prefix string) string {
	m.names++
	return prefix + strconv.Itoa(m.names)
}

func (m *schemaMaker) value(depthLeft int) string {
	if depthLeft <= 0 || rapid.IntRange(0, 2).Draw(m.T, "isLeaf") > 0 {
		if rapid.IntRange(0, 4).Draw(m.T, "isNamed") == 0 {
			return fmt.Sprintf(rapid.SampledFrom(namedTypes).Draw(m.T, "named"), m.name("N"))
		}
		return rapid.SampledFrom(leafTypes).Draw(m.T, "leaf")
	}
	switch rapid.IntRange(0, 4).Draw(m.T, "kind") {
	case 0:
		return `{"type":"array","items":` + m.value(depthLeft-1) + `}`
	case 1:
		return `{"type":"map","values":` + m.value(depthLeft-1) + `}`
	case 2:
		return m.maybe(depthLeft - 1)
	case 3:
		return rapid.SampledFrom([]string{`["null","int","string"]`, `["string"]`, `["bytes","null","double",{"type":"array","items":"boolean"}]`,
			`["long",{"type":"fixed","name":"` + m.name("U") + `","size":2},{"type":"map","values":["null","string"]}]`}).Draw(m.T, "union")
	}
	return m.record(m.name("R"), depthLeft-1)
}

func (m *schemaMaker) maybe(depthLeft int) string {
	if len(m.records) > 0 && rapid.Bool().Draw(m.T, "isRecursive") {
		return `["null","t.` + rapid.SampledFrom(m.records).Draw(m.T, "reference") + `"]`
	}
	inner := m.value(depthLeft)
	if inner == `"null"` || strings.HasPrefix(inner, "[") {
		inner = `"long"`
	}
	if rapid.Bool().Draw(m.T, "isNullFirst") {
		return `["null",` + inner + `]`
	}
	return `[` + inner + `,"null"]`
}

func (m *schemaMaker) record(name string, depthLeft int) string {
	m.records = append(m.records, name)
	fields := []string{}
	for i := range rapid.IntRange(0, 5).Draw(m.T, "fields") {
		fields = append(fields, fmt.Sprintf(`{"name":"f%d","type":%s}`, i, m.value(depthLeft)))
	}
	return `{"type":"record","namespace":"t","name":"` + name + `","fields":[` + strings.Join(fields, ",") + `]}`
}

// bodyMaker draws a random body in canonical form: blocks whole, maps in order, decimals in as few
// bytes as hold them, numbers finite.
type bodyMaker struct{ *rapid.T }

func (m bodyMaker) value(dst []byte, n *node, depthLeft int) []byte {
	switch n.kind {
	case kindNull:
		return dst
	case kindBoolean:
		return append(dst, byte(rapid.IntRange(0, 1).Draw(m.T, "boolean")))
	case kindInt, kindLong:
		return binary.AppendVarint(dst, m.integer(n))
	case kindFloat:
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(rapid.Float32().Draw(m.T, "float")))
	case kindDouble:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(rapid.Float64().Draw(m.T, "double")))
	case kindBytes:
		return appendBlob(dst, m.bytes(n))
	case kindString:
		if n.logical == "uuid" {
			id := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(m.T, "uuid")
			return appendBlob(dst, appendUUID(nil, id))
		}
		return appendBlob(dst, []byte(m.text()))
	case kindFixed:
		if n.logical == "decimal" {
			b := m.decimal(n.precision)
			return append(append(dst, bytes.Repeat([]byte{byte(int8(b[0]) >> 7)}, n.size-len(b))...), b...)
		}
		return append(dst, rapid.SliceOfN(rapid.Byte(), n.size, n.size).Draw(m.T, "fixed")...)
	case kindEnum:
		return binary.AppendVarint(dst, rapid.Int64Range(0, int64(n.size-1)).Draw(m.T, "enum"))
	}
	return m.container(dst, n, depthLeft)
}

func (m bodyMaker) container(dst []byte, n *node, depthLeft int) []byte {
	switch n.kind {
	case kindRecord:
		for _, child := range n.children {
			dst = m.value(dst, child, depthLeft-1)
		}
		return dst
	case kindUnion:
		i := rapid.IntRange(0, len(n.children)-1).Draw(m.T, "branch")
		if depthLeft <= 0 {
			i = n.shortestBranch()
		}
		return m.value(binary.AppendVarint(dst, int64(i)), n.children[i], depthLeft-1)
	}
	count := 0
	if depthLeft > 0 {
		count = rapid.SampledFrom([]int{0, 1, 2, 3, 70}).Draw(m.T, "count")
	}
	if n.kind == kindArray {
		var items []byte
		for range count {
			items = m.value(items, n.item, min(depthLeft-1, 3-count))
		}
		return appendBlock(dst, count, items)
	}
	keys := rapid.SliceOfNDistinct(rapid.String(), 0, min(count, 9), rapid.ID[string]).Draw(m.T, "keys")
	slices.Sort(keys)
	var entries []byte
	for _, key := range keys {
		entries = m.value(appendBlob(entries, []byte(key)), n.item, depthLeft-1)
	}
	return appendBlock(dst, len(keys), entries)
}

func (m bodyMaker) text() string {
	if rapid.Bool().Draw(m.T, "isOdd") {
		return rapid.StringOfN(rapid.SampledFrom([]rune("\x00\x01\n\"\\/ a\x7f\u2028é世🙂")), 0, 12, -1).Draw(m.T, "odd")
	}
	return rapid.String().Draw(m.T, "text")
}

func (m bodyMaker) integer(n *node) int64 {
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	if n.kind == kindInt {
		low, high = math.MinInt32, math.MaxInt32
	}
	if n.rule == ruleRange {
		low, high = n.low, n.high
	}
	return rapid.Int64Range(low, high).Draw(m.T, "integer")
}

func (m bodyMaker) bytes(n *node) []byte {
	switch n.rule {
	case ruleDecimal:
		return m.decimal(n.precision)
	case ruleBigDecimal:
		return binary.AppendVarint(appendBlob(nil, m.decimal(60)), rapid.Int64Range(-1000, 1000).Draw(m.T, "scale"))
	}
	return rapid.SliceOf(rapid.Byte()).Draw(m.T, "bytes")
}

// decimal draws a number of up to so many digits, by package big alone.
func (m bodyMaker) decimal(precision int) []byte {
	digits := rapid.StringMatching(`[0-9]{1,`+strconv.Itoa(precision)+`}`).Draw(m.T, "digits")
	v, _ := new(big.Int).SetString(digits, 10)
	if v.Sign() > 0 && rapid.Bool().Draw(m.T, "isNegative") {
		v.Neg(v)
	}
	size := v.BitLen()/8 + 1
	if v.Sign() < 0 {
		size = new(big.Int).Not(v).BitLen()/8 + 1
		v.Add(v, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	return v.FillBytes(make([]byte, size))
}

func appendBlob(dst, b []byte) []byte {
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// TestJSONRoundTrip: any value of any schema, written as JSON, is JSON, means what DecodeMap says,
// and comes back as the same bytes; with its objects turned round too.
func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		maker := schemaMaker{T: t}
		text := maker.record("Top", 4)
		reg, err := RegisterText(1, "t.Top", 1, "event", text)
		if err != nil {
			t.Fatalf("the test's own schema does not parse: %v\n%s", err, text)
		}
		c := New(NewStaticReader(reg), Config{})
		body := bodyMaker{t}.value(nil, reg.Schema.root, 4)
		if reg.Schema.Check(body, Limits{}) != nil {
			t.Skip("the value is beyond the limits")
		}
		checkJSONRoundTrip(t, c, Payload{Registered: reg, Body: body}, body)
	})
}

// checkJSONRoundTrip also takes a body that is not canonical; want is its canonical form, or nil.
func checkJSONRoundTrip(t rapid.TB, c *Codec, p Payload, want []byte) {
	t.Helper()
	text, err := c.AppendJSON(nil, p)
	if err != nil {
		t.Fatalf("AppendJSON: %v\n%s\n% x", err, p.Registered.Schema.Text(), p.Body)
	}
	value := parseJSON(t, text)
	m, err := c.DecodeMap(p)
	if err != nil {
		t.Fatalf("DecodeMap: %v", err)
	}
	if difference := jsonDiffers(p.Registered.Schema.root, value, m); difference != "" {
		t.Fatalf("JSON and DecodeMap differ: %s\n%s\n%s", difference, text, p.Registered.Schema.Text())
	}
	if want == nil {
		return
	}
	sorted, err := json.Marshal(value) // the names in another order
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range [][]byte{text, sorted} {
		again, err := c.EncodeJSON(nil, p.Registered, in)
		if err != nil {
			t.Fatalf("EncodeJSON: %v\n%s\n%s", err, in, p.Registered.Schema.Text())
		}
		if !bytes.Equal(again, want) {
			t.Fatalf("round trip: got % x\nwant % x\n%s\n%s", again, want, in, p.Registered.Schema.Text())
		}
	}
}

func parseJSON(t rapid.TB, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		t.Fatalf("not one JSON value (%v): %s", err, text)
	}
	return v
}

// jsonDiffers compares what package json reads with what DecodeMap gives, by other means than the
// code under test. It returns what differs, or "".
func jsonDiffers(n *node, got, want any) string {
	if difference := jsonDiffersAt(n, got, want); difference != "" {
		return fmt.Sprintf("%s: %v is not %v", n.describe()+difference, got, want)
	}
	return ""
}

func jsonDiffersAt(n *node, got, want any) string {
	var same bool
	switch n.kind {
	case kindUnion:
		return unionDiffers(n, got, want)
	case kindRecord, kindMap, kindArray:
		return itemsDiffer(n, got, want)
	case kindNull:
		same = got == nil && want == nil
	case kindBoolean, kindEnum:
		same = got == want
	case kindFloat:
		v, err := strconv.ParseFloat(string(got.(json.Number)), 32)
		same = err == nil && math.Float32bits(float32(v)) == math.Float32bits(want.(float32))
	case kindDouble:
		v, err := strconv.ParseFloat(string(got.(json.Number)), 64)
		same = err == nil && math.Float64bits(v) == math.Float64bits(want.(float64))
	case kindString:
		same = got == want
	case kindInt, kindLong:
		same = sameInteger(n, got, want)
	default:
		same = sameBinary(n, got, want)
	}
	if same {
		return ""
	}
	return " differs"
}

func sameInteger(n *node, got, want any) bool {
	layouts := map[string]string{"date": time.DateOnly, "time-millis": "15:04:05.999999999", "time-micros": "15:04:05.999999999"}
	for _, unit := range []string{"millis", "micros", "nanos"} {
		layouts["timestamp-"+unit], layouts["local-timestamp-"+unit] = time.RFC3339Nano, "2006-01-02T15:04:05.999999999"
	}
	layout, isTime := layouts[n.logical]
	if !isTime {
		v, err := got.(json.Number).Int64()
		if w, isInt := want.(int32); isInt {
			return err == nil && v == int64(w)
		}
		return err == nil && v == want.(int64)
	}
	at, err := time.Parse(layout, got.(string))
	if d, ok := want.(time.Duration); ok {
		return err == nil && at.Sub(at.Truncate(24*time.Hour)) == d
	}
	return err == nil && at.Equal(want.(time.Time))
}

func sameBinary(n *node, got, want any) bool {
	if members, ok := got.(map[string]any); ok { // duration
		b := want.([]byte)
		return len(members) == 3 && fmt.Sprintln(members["months"], members["days"], members["millis"]) ==
			fmt.Sprintln(binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]))
	}
	switch w := want.(type) {
	case *big.Rat:
		v, ok := new(big.Rat).SetString(got.(string))
		return ok && v.Cmp(w) == 0
	case [16]byte:
		return strings.ReplaceAll(got.(string), "-", "") == hex.EncodeToString(w[:])
	case []byte:
		b, err := base64.StdEncoding.DecodeString(got.(string))
		return err == nil && bytes.Equal(b, w)
	}
	return false
}

func unionDiffers(n *node, got, want any) string {
	if got == nil {
		if want != nil {
			return " is null"
		}
		return ""
	}
	plain := slices.DeleteFunc(slices.Clone(n.children), func(b *node) bool { return b.kind == kindNull })
	if len(plain) == 1 && len(n.children) == 2 {
		return jsonDiffers(plain[0], got, want)
	}
	members, ok := got.(map[string]any)
	if !ok || len(members) != 1 {
		return " is not tagged"
	}
	for _, b := range plain {
		tag := b.kind.String()
		if b.kind.named() {
			tag = b.name
		}
		if value, ok := members[tag]; ok {
			return jsonDiffers(b, value, want)
		}
	}
	return " has an unknown tag"
}

func itemsDiffer(n *node, got, want any) string {
	if n.kind == kindArray {
		g, w := got.([]any), want.([]any)
		for i := range min(len(g), len(w)) {
			if difference := jsonDiffers(n.item, g[i], w[i]); difference != "" {
				return difference
			}
		}
		return lengthsDiffer(len(g), len(w))
	}
	g, w := got.(map[string]any), want.(map[string]any)
	for name := range w {
		child := n.item
		if n.kind == kindRecord {
			child = n.children[slices.IndexFunc(n.fields, func(f field) bool { return f.name == name })]
		}
		value, ok := g[name]
		if !ok {
			return " lacks " + name
		}
		if difference := jsonDiffers(child, value, w[name]); difference != "" {
			return "." + name + " of " + difference
		}
	}
	return lengthsDiffer(len(g), len(w))
}

func lengthsDiffer(got, want int) string {
	if got != want {
		return fmt.Sprintf(" has %d, not %d", got, want)
	}
	return ""
}

// TestJSONTimesAreThoseOfPackageTime walks the calendar's corners.
func TestJSONTimesAreThoseOfPackageTime(t *testing.T) {
	t.Parallel()
	for days := yearFirst.Unix() / 86400; days <= yearLast.Unix()/86400; days += 13 {
		want := time.Unix(days*86400, 0).UTC().Format(time.DateOnly)
		if got := string(appendDate(nil, days)); got != want {
			t.Fatalf("day %d: got %s, want %s", days, got, want)
		}
		text := timeText{text: []byte(want), ok: true}
		if got := text.date(); got != days || !text.ended() {
			t.Fatalf("%s: got day %d, want %d", want, got, days)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(0, rapid.Int64().Draw(t, "nanos")).UTC()
		want, err := at.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if got := appendTimestamp(nil, at.UnixNano(), 1, false); !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
		zone := time.FixedZone("", rapid.IntRange(-23*60-59, 23*60+59).Draw(t, "minutes")*60)
		j := jsonNode{form: formTimestamp, unit: 1, low: math.MinInt64, high: math.MaxInt64}
		if got, wrong := j.parseTime([]byte(at.In(zone).Format(time.RFC3339Nano))); wrong != "" || got != at.UnixNano() {
			t.Fatalf("%s: got %d %s, want %d", at.In(zone), got, wrong, at.UnixNano())
		}
	})
}

// TestJSONScannerAgreesWithPackageJSON on what is JSON, by texts that nearly are.
func TestJSONScannerAgreesWithPackageJSON(t *testing.T) {
	t.Parallel()
	token := rapid.SampledFrom([]string{"{", "}", "[", "]", ",", ":", `"a"`, `"\u12aF"`, `"\u12"`, `"\x"`, "\"\n\"", "0", "-1.5e+3", "01", "1.", "-", "true", "null", "fals", " ", "\t\r\n", "\v"})
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOfN(token, 1, 9).Draw(t, "tokens"), ""))
		s := jsonScanner{text: text}
		got := s.skip()
		if s.peek(); s.pos < len(text) {
			got = false
		}
		if want := json.Valid(text); got != want {
			t.Fatalf("%q: got %v (%v), want %v", text, got, s.faults, want)
		}
	})
}
