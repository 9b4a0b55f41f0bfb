package codec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile is one row of the table of attacks in docs/decisions/0002-avro-library-and-guard.md.
type hostile struct {
	name  string
	field string // the type of the record's one field
	body  []byte
}

// doubling returns a type of 2^levels values that takes no bytes.
func doubling(levels int) string {
	inner := `{"type":"record","name":"D0","fields":[]}`
	for i := 1; i <= levels; i++ {
		inner = fmt.Sprintf(`{"type":"record","name":"D%d","fields":[{"name":"a","type":%s},{"name":"b","type":"D%d"}]}`, i, inner, i-1)
	}
	return inner
}

func hostiles() []hostile {
	const node = `{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}`
	const array, mapOf = `{"type":"array","items":%s}`, `{"type":"map","values":%s}`
	rows := []hostile{
		{"record that holds itself, 0 bytes", `{"type":"record","name":"Self","fields":[{"name":"self","type":"Self"}]}`, nil},
		{"linked list of 8 KB, truncated", node, bytes.Repeat([]byte{2}, 8<<10)},
		{"linked list of 4 MB, well formed", node, append(bytes.Repeat([]byte{2}, 4<<20), 0)},
		{"linked list of 1 MB, well formed", node, append(bytes.Repeat([]byte{2}, 1<<20-1), 0)},
		{"array of null in blocks of 8191, 1 MB", fmt.Sprintf(array, `"null"`), append(bytes.Repeat(varints(8191), (1<<20-1)/2), 0)},
		{"array of array of null, 24 KB", fmt.Sprintf(array, fmt.Sprintf(array, `"null"`)), arraysOfNull(24 << 10)},
		{"array of boolean in blocks of 1, 64 KB", fmt.Sprintf(array, `"boolean"`), append(bytes.Repeat([]byte{2, 1}, 32<<10), 0)},
		{"map of boolean in blocks of 1, 64 KB", fmt.Sprintf(mapOf, `"boolean"`), append(bytes.Repeat([]byte{2, 0, 1}, 21<<10), 0)},
		{"22 doubling empty records, 0 bytes", doubling(22), nil},
		{"array of 22 doubling empty records", fmt.Sprintf(array, doubling(22)), varints(1<<30, 0)},
		{"decimal of 1 MB", `{"type":"bytes","logicalType":"decimal","precision":30,"scale":2}`, join(varints(1<<20-8), bytes.Repeat([]byte{0x7f}, 1<<20-8))},
		{"100,000 big-decimals of scale 65536", fmt.Sprintf(array, `{"type":"bytes","logicalType":"big-decimal"}`),
			join(varints(99_000), bytes.Repeat(join(varints(5, 1), []byte{5}, varints(65536)), 99_000), varints(0))},
	}
	for _, exponent := range []int{28, 29, 30, 31, 40, 62} {
		count := varints(1 << exponent)
		rows = append(rows,
			hostile{fmt.Sprintf("array of null, count 2^%d", exponent), fmt.Sprintf(array, `"null"`), append(count, 0)},
			hostile{fmt.Sprintf("array of string, count 2^%d", exponent), fmt.Sprintf(array, `"string"`), append(count, 0, 0)},
			hostile{fmt.Sprintf("map of int, count 2^%d", exponent), fmt.Sprintf(mapOf, `"int"`), append(count, 0, 0)},
			hostile{fmt.Sprintf("bytes, length 2^%d", exponent), `"bytes"`, count})
	}
	return rows
}

// arraysOfNull is an array whose items are arrays of as many nulls as two bytes can say.
func arraysOfNull(size int) []byte {
	inner := append(varints(8191), 0)
	count := size / len(inner)
	return join(varints(int64(count)), bytes.Repeat(inner, count), varints(0))
}

// TestHostileAvroIsRefused: what brings an Avro library to its knees costs us next to nothing.
// It may not run beside others, since it reads the process's allocations.
func TestHostileAvroIsRefused(t *testing.T) {
	const allocatedMax = 32 << 20
	worst := struct {
		took      time.Duration
		allocated uint64
	}{}
	for i, row := range hostiles() {
		text := fmt.Sprintf(`{"type":"record","namespace":"hostile","name":"R","fields":[{"name":"f","type":%s}]}`, row.field)
		c := New(NewStaticReader(register(t, int32(i), "hostile.R", 1, text)), Config{})
		value := append(AppendConfluent(nil, int32(i)), row.body...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		p, err := c.Inspect(context.Background(), "hostile.R", value)
		if err == nil {
			_, err = c.DecodeMap(p)
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		worst.took, worst.allocated = max(worst.took, took), max(worst.allocated, allocated)
		t.Logf("%-45s %8d bytes in: %10s, %6d bytes allocated: %v", row.name, len(row.body), took.Round(time.Microsecond), allocated, err)
		if !errors.Is(err, ErrHostile) {
			t.Errorf("%s: got %v, want a refusal by the guard", row.name, err)
		}
		if allocated > allocatedMax {
			t.Errorf("%s: allocated %d bytes, want at most %d", row.name, allocated, allocatedMax)
		}
	}
	t.Logf("worst: %s, %d bytes allocated", worst.took, worst.allocated)
}

// TestLargestHonestBodiesStayWithinMemory: what the guard lets through is bounded too.
func TestLargestHonestBodiesStayWithinMemory(t *testing.T) {
	const allocatedMax = 64 << 20
	record := func(fields string) string {
		return `{"type":"array","items":{"type":"record","name":"I","fields":[` + fields + `]}}`
	}
	count := int64(49_000)
	for name, row := range map[string]hostile{
		"99,000 booleans":          {field: `{"type":"array","items":"boolean"}`, body: join(varints(99_000), make([]byte, 99_000), varints(0))},
		"49,000 records":           {field: record(`{"name":"a","type":"boolean"}`), body: join(varints(count), make([]byte, count), varints(0))},
		"4,096 records of none":    {field: record(``), body: varints(4096, 0)},
		"one string of 1 MB":       {field: `"string"`, body: join(varints(1<<20-16), []byte(strings.Repeat("x", 1<<20-16)))},
		"array in 1,400 blocks":    {field: `{"type":"array","items":"boolean"}`, body: append(bytes.Repeat([]byte{2, 1}, 1400), 0)},
		"49,000 one-entry maps":    {field: `{"type":"array","items":{"type":"map","values":"boolean"}}`, body: join(varints(count), bytes.Repeat([]byte{2, 0, 1, 0}, int(count)), varints(0))},
		"1,000 big-decimals":       {field: `{"type":"array","items":{"type":"bytes","logicalType":"big-decimal"}}`, body: join(varints(1000), bytes.Repeat(join(varints(4, 1), []byte{5}, varints(1000)), 1000), varints(0))},
		"50,000 decimals, 9 scale": {field: `{"type":"array","items":{"type":"bytes","logicalType":"decimal","precision":18,"scale":9}}`, body: join(varints(50_000), bytes.Repeat([]byte{2, 5}, 50_000), varints(0))},
	} {
		text := fmt.Sprintf(`{"type":"record","namespace":"honest","name":"R","fields":[{"name":"f","type":%s}]}`, row.field)
		c := New(NewStaticReader(register(t, 1, "honest.R", 1, text)), Config{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		p, err := c.InspectBody(context.Background(), "honest.R", 1, row.body)
		if err == nil {
			_, err = c.DecodeMap(p)
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		t.Logf("%-28s %s, %d bytes allocated", name, took.Round(time.Microsecond), allocated)
		if err != nil {
			t.Errorf("%s: got %v, want acceptance", name, err)
		}
		if allocated > allocatedMax {
			t.Errorf("%s: allocated %d bytes, want at most %d", name, allocated, allocatedMax)
		}
	}
}

// TestHostileBlocksAreBounded tries the least honest cut of an array that the limits admit.
func TestHostileBlocksAreBounded(t *testing.T) {
	s := compile(t, `{"type":"array","items":"boolean"}`)
	var body []byte
	for range 2000 {
		body = binary.AppendVarint(body, 1)
		body = append(body, 1)
	}
	if err := s.Check(append(body, 0), Limits{}); !errors.Is(err, ErrHostile) {
		t.Errorf("2000 blocks of one item: got %v, want a refusal", err)
	}
}
