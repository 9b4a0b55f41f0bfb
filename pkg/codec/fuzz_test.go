package codec

import (
	"maps"
	"runtime"
	"slices"
	"testing"
)

// FuzzGuard: what the guard takes, the library decodes, without a panic and within memory, and
// goavro means the same by it.
func FuzzGuard(f *testing.F) {
	const bodyBytesMax, allocatedMax = 16 << 10, 64 << 20
	schemas := differentialSchemas(f)
	for i, row := range hostiles() {
		if len(row.body) < bodyBytesMax {
			s := compile(f, xRecord(`{"name":"f","type":`+row.field+`}`))
			schemas["hostile "+row.name] = s
			f.Add(uint16(i), row.body)
		}
	}
	names := slices.Sorted(maps.Keys(schemas))
	for i, name := range names {
		s := schemas[name]
		if s.root.minValues > minValuesMax || s.root.minBytes >= boundless {
			continue
		}
		for variant := range s.variants() {
			f.Add(uint16(i), appendSample(nil, s.root, variant, 4))
		}
	}
	limitGoavro()
	f.Fuzz(func(t *testing.T, which uint16, body []byte) {
		s := schemas[names[int(which)%len(names)]]
		if len(body) > bodyBytesMax || s.Check(body, Limits{}) != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var v any
		if err := decode(s.avro, body, &v); err != nil {
			t.Fatalf("the guard takes it, the library refuses: %v", err)
		}
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > allocatedMax {
			t.Fatalf("decoding %d bytes allocated %d", len(body), allocated)
		}
		if difference := verdicts(s, oracle(t, s), body); difference != "" {
			t.Fatal(difference)
		}
	})
}

// FuzzParse: no schema text brings the compiler down, and what parses can be asked everything.
func FuzzParse(f *testing.F) {
	for _, s := range differentialSchemas(f) {
		f.Add(s.Text())
	}
	f.Add(`{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`)
	f.Add(`["null","int"]`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		Lint(s)
		if faults := CheckCompatible(s, s); len(faults) > 0 {
			t.Fatalf("a schema does not read itself: %v", faults)
		}
		if s.root.minBytes < 1<<16 && s.root.minValues < minValuesMax {
			for variant := range min(s.variants(), 8) {
				_ = s.Check(appendSample(nil, s.root, variant, 4), Limits{})
			}
		}
	})
}
