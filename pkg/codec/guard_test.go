package codec

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func varints(values ...int64) []byte {
	var b []byte
	for _, v := range values {
		b = binary.AppendVarint(b, v)
	}
	return b
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestGuardTakesWhatIsWellFormed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, schema string
		body         []byte
	}{
		{"null", `"null"`, nil},
		{"false", `"boolean"`, []byte{0}},
		{"least int", `"int"`, varints(math.MinInt32)},
		{"greatest long", `"long"`, varints(math.MaxInt64)},
		{"least long", `"long"`, varints(math.MinInt64)},
		{"float", `"float"`, make([]byte, 4)},
		{"string", `"string"`, join(varints(3), []byte("äx"))},
		{"bytes that are not UTF-8", `"bytes"`, join(varints(1), []byte{0xff})},
		{"fixed", `{"type":"fixed","name":"F","size":3}`, make([]byte, 3)},
		{"last symbol", `{"type":"enum","name":"E","symbols":["A","B"]}`, varints(1)},
		{"empty array", `{"type":"array","items":"int"}`, varints(0)},
		{"two blocks", `{"type":"array","items":"int"}`, varints(1, 5, 2, 6, 7, 0)},
		{"block with size", `{"type":"array","items":"int"}`, varints(-2, 2, 6, 7, 0)},
		{"map", `{"type":"map","values":"int"}`, join(varints(1, 1), []byte("k"), varints(9, 0))},
		{"union", `["null","int"]`, varints(1, 4)},
		{"last micros of the year 9999", `{"type":"long","logicalType":"timestamp-micros"}`, varints(yearLast.UnixMicro())},
		{"decimal", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, join(varints(2), []byte{0x7f, 0xff})},
		{"big-decimal", `{"type":"bytes","logicalType":"big-decimal"}`, join(varints(3, 1), []byte{5}, varints(2))},
	} {
		if err := compile(t, c.schema).Check(c.body, Limits{}); err != nil {
			t.Errorf("%s: got %v, want acceptance", c.name, err)
		}
	}
}

func TestGuardRefusesWhatIsMalformed(t *testing.T) {
	t.Parallel()
	const arrayOfInt, micros = `{"type":"array","items":"int"}`, `{"type":"long","logicalType":"timestamp-micros"}`
	for _, c := range []struct {
		name, schema string
		body         []byte
		want         string
	}{
		{"boolean 2", `"boolean"`, []byte{2}, "neither 0 nor 1"},
		{"no boolean", `"boolean"`, nil, "ends inside"},
		{"int of 33 bits", `"int"`, varints(math.MaxInt32 + 1), "out of range for int"},
		{"long of 65 bits", `"long"`, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02}, "more than 64 bits"},
		{"endless integer", `"long"`, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, "more than 64 bits"},
		{"padded integer", `"long"`, []byte{0x82, 0x00}, "padded"},
		{"cut integer", `"long"`, []byte{0x82}, "ends inside"},
		{"cut double", `"double"`, make([]byte, 7), "ends inside"},
		{"cut fixed", `{"type":"fixed","name":"F","size":3}`, make([]byte, 2), "ends inside"},
		{"negative length", `"string"`, varints(-1), "negative"},
		{"length beyond the end", `"bytes"`, varints(5), "beyond the end"},
		{"length near the greatest", `"bytes"`, varints(math.MaxInt64), "beyond the end"},
		{"string that is not UTF-8", `"string"`, join(varints(2), []byte{0xc3, 0x28}), "UTF-8"},
		{"key that is not UTF-8", `{"type":"map","values":"int"}`, join(varints(1, 1), []byte{0xff}, varints(1, 0)), "UTF-8"},
		{"symbol that is not there", `{"type":"enum","name":"E","symbols":["A","B"]}`, varints(2), "enum index"},
		{"negative symbol", `{"type":"enum","name":"E","symbols":["A","B"]}`, varints(-1), "enum index"},
		{"branch that is not there", `["null","int"]`, varints(2), "union index"},
		{"trailing byte", `"int"`, []byte{2, 0}, "1 bytes follow"},
		{"array without an end", arrayOfInt, varints(1, 5), "ends inside"},
		{"block size too small", arrayOfInt, varints(-2, 1, 6, 7, 0), "block size does not match"},
		{"block size too large", arrayOfInt, varints(-2, 3, 6, 7, 0), "block size does not match"},
		{"block size beyond the end", arrayOfInt, varints(-2, 99, 6, 7, 0), "block size beyond"},
		{"negative block size", arrayOfInt, varints(-2, -3, 6, 7, 0), "block size beyond"},
		{"least block count", arrayOfInt, varints(math.MinInt64, 1, 6, 0), "block count"},
		{"the year 10000", micros, varints(yearLast.UnixMicro() + 1), "out of range for timestamp-micros"},
		{"before the year 1", micros, varints(yearFirst.UnixMicro() - 1), "out of range for timestamp-micros"},
		{"25th hour", `{"type":"int","logicalType":"time-millis"}`, varints(int64(24 * time.Hour / time.Millisecond)), "out of range for time-millis"},
		{"decimal too wide", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`, join(varints(3), make([]byte, 3)), "more bytes than its precision"},
		{"big-decimal with a huge scale", `{"type":"bytes","logicalType":"big-decimal"}`, join(varints(5, 1), []byte{5}, varints(60000)), "scale"},
		{"big-decimal cut", `{"type":"bytes","logicalType":"big-decimal"}`, join(varints(2, 9), []byte{5}), "malformed"},
	} {
		err := compile(t, c.schema).Check(c.body, Limits{})
		if !errors.Is(err, ErrHostile) || !errors.Is(err, ErrBadData) {
			t.Errorf("%s: got %v, want an error that wraps ErrHostile", c.name, err)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, want it to say %q", c.name, err, c.want)
		}
	}
}

func TestGuardHoldsItsLimits(t *testing.T) {
	t.Parallel()
	const ints, bools, nested = `{"type":"array","items":"int"}`, `{"type":"array","items":"boolean"}`,
		`{"type":"record","name":"N","fields":[{"name":"next","type":["null","N"]}]}`
	items := func(n int) []byte { return join(varints(int64(n)), make([]byte, n), varints(0)) }
	blocks := func(n int) []byte {
		var b []byte
		for range n {
			b = append(b, 2, 1)
		}
		return append(b, 0)
	}
	chain := func(n int) []byte {
		b := make([]byte, n)
		for i := range n - 1 {
			b[i] = 2
		}
		return b
	}
	for _, c := range []struct {
		name, schema string
		limits       Limits
		fits, beyond []byte
		want         string
	}{
		{"bytes", ints, Limits{BytesMax: 12}, items(10), items(11), "13 bytes, at most 12"},
		{"values", ints, Limits{ValuesMax: 11}, items(10), items(11), "too many values"},
		{"regrowth", bools, Limits{RegrowthSlotsMax: 6}, blocks(4), blocks(5), "too many blocks"},
		{"depth", nested, Limits{DepthMax: 6}, chain(3), chain(4), "too deep"},
	} {
		s := compile(t, c.schema)
		if err := s.Check(c.fits, c.limits); err != nil {
			t.Errorf("%s at the limit: got %v, want acceptance", c.name, err)
		}
		if err := s.Check(c.beyond, c.limits); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s beyond the limit: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestGuardNamesTheField(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":{"type":"array","items":
		{"type":"record","name":"Q","fields":[{"name":"c","type":"boolean"}]}}}]}`)
	err := s.Check([]byte{2, 2, 9, 0}, Limits{})
	if err == nil || !strings.Contains(err.Error(), "at byte 2, field b.c") {
		t.Errorf("got %v, want byte 2 and field b.c", err)
	}
}

func TestGuardDoesNotAllocate(t *testing.T) {
	s := compile(t, orderPlacedV1)
	body := appendSample(nil, s.root, 1, sampleDepth)
	if got := testing.AllocsPerRun(100, func() {
		if err := s.Check(body, Limits{}); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
