package decidertest_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/decider/decidertest"
)

// A meter is a category with schemas.
type (
	read    struct{ Value int64 }
	readOut struct {
		Value int64     `avro:"value"`
		At    time.Time `avro:"at"`
	}
	meter struct {
		Unit string         `avro:"unit"`
		Seen map[string]int `avro:"-"`
		Last time.Time      `avro:"last"`
	}
)

func meters() decider.Spec[meter] {
	return decider.Spec[meter]{
		Category: "meter", StateVersion: 1,
		Types: decider.Types{decider.Event[readOut]("meter.ReadOut", 1)},
		Decide: func(meter, decider.Message) (decider.Decision, error) {
			return decider.Emit()
		},
		Evolve: func(s meter, m decider.Message) meter {
			s.Last = m.Data.(readOut).At
			return s
		},
	}
}

func meterSchemas() fstest.MapFS {
	return fstest.MapFS{
		"meter/ReadOut.v1.avsc": {Data: []byte(`{"type":"record","namespace":"meter","name":"ReadOut","fs.kind":"event","fields":[
			{"name":"value","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}`)},
		"meter/State.v1.avsc": {Data: []byte(`{"type":"record","namespace":"meter","name":"State","fs.kind":"state","fields":[
			{"name":"unit","type":"string"},{"name":"last","type":{"type":"long","logicalType":"timestamp-micros"}}]}`)},
	}
}

func TestSchemasAreUsed(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 0, 0, 0, 1000, time.UTC)
	decidertest.New(t, meters(), decidertest.Schemas(meterSchemas())).
		Given(readOut{Value: 1, At: at}).ThenState(meter{Last: at})
}

func TestSchemasFindWhatDoesNotSurvive(t *testing.T) {
	t.Parallel()
	without := func(name string) fstest.MapFS {
		files := meterSchemas()
		delete(files, name)
		return files
	}
	cases := []struct {
		name string
		test func(decidertest.TB)
		want []string
	}{
		{"an event's time that is finer than its schema", func(tb decidertest.TB) {
			decidertest.New(tb, meters(), decidertest.Schemas(meterSchemas())).Given(readOut{At: decidertest.Epoch.Add(1)})
		}, []string{"meter.ReadOut comes back", "+   At: 2026-01-01T00:00:00.000000001Z"}},
		{"a state's field that is not in its schema", func(tb decidertest.TB) {
			spec := meters()
			spec.Evolve = func(s meter, _ decider.Message) meter {
				s.Seen = map[string]int{"x": 1}
				return s
			}
			decidertest.New(tb, spec, decidertest.Schemas(meterSchemas())).Given(readOut{At: decidertest.Epoch})
		}, []string{"meter.State comes back", `"x": 1`}},
		{"a text that is no UTF-8", func(tb decidertest.TB) {
			spec := meters()
			spec.Evolve = func(s meter, _ decider.Message) meter {
				s.Unit = "\xff"
				return s
			}
			decidertest.New(tb, spec, decidertest.Schemas(meterSchemas())).Given(readOut{At: decidertest.Epoch})
		}, []string{"meter.State"}},
		{"a type without a schema", func(tb decidertest.TB) {
			decidertest.New(tb, meters(), decidertest.Schemas(without("meter/ReadOut.v1.avsc")))
		}, []string{"meter/ReadOut.v1.avsc"}},
		{"a state without a schema", func(tb decidertest.TB) {
			decidertest.New(tb, meters(), decidertest.Schemas(without("meter/State.v1.avsc")))
		}, []string{"meter/State.v1.avsc"}},
		{"a struct that does not bind", func(tb decidertest.TB) {
			spec := meters()
			spec.Types = decider.Types{decider.Event[read]("meter.ReadOut", 1)}
			decidertest.New(tb, spec, decidertest.Schemas(meterSchemas()))
		}, []string{"meter.ReadOut"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := fails(c.test)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
		})
	}
}
