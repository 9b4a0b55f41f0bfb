package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// jsonFuzzWorld is a codec over every schema of the differential tests, by number.
func jsonFuzzWorld(f *testing.F) (*Codec, []*Registered) {
	f.Helper()
	schemas := differentialSchemas(f)
	var regs []*Registered
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		s := schemas[name]
		regs = append(regs, &Registered{ID: int32(len(regs)), Type: s.Name(), Version: 1, Schema: s})
	}
	for _, fieldType := range []string{tDecimal, tDecimalFx, tBig, tUUIDFx, tDuration, tWide, tTree, tMap(tMap(`"string"`)), tLong("timestamp-nanos"), tLong("local-timestamp-millis")} {
		s := compile(f, xRecord(`{"name":"f","type":`+fieldType+`}`))
		regs = append(regs, &Registered{ID: int32(len(regs)), Type: s.Name(), Version: 1, Schema: s})
	}
	return New(NewStaticReader(regs...), Config{}), regs
}

// FuzzEncodeJSON: no text brings it down; what it takes is JSON, passes the guard, and its JSON
// encodes to the same bytes.
func FuzzEncodeJSON(f *testing.F) {
	c, regs := jsonFuzzWorld(f)
	for i, reg := range regs {
		for variant := range reg.Schema.variants() {
			text, err := c.AppendJSON(nil, Payload{Registered: reg, Body: appendSample(nil, reg.Schema.root, variant, 4)})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), text)
		}
	}
	for _, text := range []string{`{"f":"1e9"}`, `{"f":{"int":1e99}}`, `{"i":-0.5e1,"s":"\ud83d\ude42"}`, `{"x":[[{"a":[]}]]}`, `{"f":"2026-01-31T15:04:05.000001+01:00"}`} {
		f.Add(uint8(0), []byte(text))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		reg := regs[int(which)%len(regs)]
		body, err := c.EncodeJSON(nil, reg, text)
		if err != nil {
			fault := (*JSONError)(nil)
			if !errors.As(err, &fault) || len(fault.Faults) == 0 || len(fault.Faults) > JSONFaultsMax || len(err.Error()) > 64<<10 {
				t.Fatalf("got %T of %d bytes, want a *JSONError within its bounds", err, len(err.Error()))
			}
			return
		}
		if !json.Valid(text) {
			t.Fatalf("took what is no JSON: %q", text)
		}
		p, err := c.InspectBody(t.Context(), reg.Type, reg.ID, body)
		if err != nil {
			t.Fatalf("the guard refuses what it wrote: %v", err)
		}
		checkJSONRoundTrip(t, c, p, body)
	})
}

// FuzzAppendJSON: what the guard takes has JSON that means what DecodeMap says; what it refuses
// is a fault and no panic.
func FuzzAppendJSON(f *testing.F) {
	c, regs := jsonFuzzWorld(f)
	for i, reg := range regs {
		for variant := range reg.Schema.variants() {
			f.Add(uint8(i), appendSample(nil, reg.Schema.root, variant, 4))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		reg := regs[int(which)%len(regs)]
		p := Payload{Registered: reg, Body: body}
		text, err := c.AppendJSON(nil, p)
		if refused := reg.Schema.Check(body, Limits{}); refused != nil {
			if err == nil && !json.Valid(text) {
				t.Fatalf("wrote what is no JSON: %q", text)
			}
			return
		}
		if err != nil && (strings.Contains(err.Error(), "not finite") || strings.Contains(err.Error(), "times the bytes")) {
			return
		}
		again, encodeErr := c.EncodeJSON(nil, reg, text)
		if encodeErr == nil && len(again) == len(body) && bytes.Equal(reg.Schema.orderMaps(body), again) {
			checkJSONRoundTrip(t, c, p, again)
			return
		}
		checkJSONRoundTrip(t, c, p, nil)
	})
}
