package codec

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/foldstream/foldstream/pkg/event"
)

// downReader is a registry that cannot be reached.
type downReader struct{ *StaticReader }

var errDown = errors.New("registry is down")

func (downReader) ByID(context.Context, int32) (*Registered, error) { return nil, errDown }
func (downReader) ByFingerprint(context.Context, Fingerprint) (*Registered, error) {
	return nil, errDown
}

// countingReader counts the look-ups that reach it.
type countingReader struct {
	*StaticReader
	lookUps int
}

func (r *countingReader) ByID(ctx context.Context, id int32) (*Registered, error) {
	r.lookUps++
	return r.StaticReader.ByID(ctx, id)
}

const counted = `{"type":"record","namespace":"order","name":"Counted","fs.kind":"event","fields":[{"name":"n","type":"int"}]}`

func TestInspectReadsBothFramings(t *testing.T) {
	t.Parallel()
	reg := register(t, 7, "order.Counted", 1, counted)
	c := New(NewStaticReader(reg), Config{})
	for name, header := range map[string][]byte{
		"Confluent": AppendConfluent(nil, 7), "single-object": AppendSingleObject(nil, reg.Schema.Fingerprint()),
	} {
		p, err := c.Inspect(context.Background(), "order.Counted", append(header, 6))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := c.DecodeMap(p)
		if err != nil || p.Registered != reg || got["n"] != int32(3) {
			t.Errorf("%s: got %v, %v, want n = 3", name, got, err)
		}
	}
}

func TestInspectNamesEachFault(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Counted", 1, counted)), Config{})
	for _, row := range []struct {
		name, typ string
		value     []byte
		op        string
		want      error
	}{
		{"null value", "order.Counted", nil, OpFrame, ErrFrame},
		{"wrong magic", "order.Counted", []byte("{}"), OpFrame, ErrFrame},
		{"unknown id", "order.Counted", []byte{0, 0, 0, 0, 8, 6}, OpSchema, ErrUnknownSchema},
		{"unknown fingerprint", "order.Counted", AppendSingleObject(nil, 1), OpSchema, ErrUnknownSchema},
		{"another type's schema", "order.Placed", []byte{0, 0, 0, 0, 7, 6}, OpSchema, ErrTypeMismatch},
		{"truncated", "order.Counted", []byte{0, 0, 0, 0, 7}, OpGuard, ErrHostile},
		{"trailing bytes", "order.Counted", []byte{0, 0, 0, 0, 7, 6, 6}, OpGuard, ErrHostile},
	} {
		_, err := c.Inspect(context.Background(), row.typ, row.value)
		var typed *Error
		if !errors.As(err, &typed) || typed.Op != row.op || typed.Type != row.typ {
			t.Errorf("%s: got %#v, want an *Error of step %s", row.name, err, row.op)
		}
		if !errors.Is(err, row.want) || !errors.Is(err, ErrBadData) {
			t.Errorf("%s: got %v, want it to wrap %v and ErrBadData", row.name, err, row.want)
		}
	}
}

func TestARegistryThatIsDownIsNoFaultOfTheData(t *testing.T) {
	t.Parallel()
	c := New(downReader{NewStaticReader()}, Config{})
	for name, value := range map[string][]byte{"id": {0, 0, 0, 0, 7, 6}, "fingerprint": AppendSingleObject(nil, 5)} {
		_, err := c.Inspect(context.Background(), "order.Counted", value)
		if !errors.Is(err, errDown) || errors.Is(err, ErrBadData) {
			t.Errorf("%s: got %v, want the reader's error without ErrBadData", name, err)
		}
	}
}

func TestASchemaIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	reader := &countingReader{StaticReader: NewStaticReader(register(t, 7, "order.Counted", 1, counted))}
	c := New(reader, Config{})
	for range 5 {
		if _, err := c.Inspect(context.Background(), "order.Counted", []byte{0, 0, 0, 0, 7, 6}); err != nil {
			t.Fatal(err)
		}
		// What is unknown is not remembered: it may be registered by the next time.
		if _, err := c.Inspect(context.Background(), "order.Counted", []byte{0, 0, 0, 0, 9, 6}); !errors.Is(err, ErrUnknownSchema) {
			t.Fatalf("got %v, want ErrUnknownSchema", err)
		}
	}
	if reader.lookUps != 6 {
		t.Errorf("got %d look-ups, want 1 of the known and 5 of the unknown id", reader.lookUps)
	}
}

func TestTheCacheOfSchemasIsBounded(t *testing.T) {
	t.Parallel()
	var regs []*Registered
	for i := range 4 {
		name := fmt.Sprintf("T%d", i)
		regs = append(regs, register(t, int32(i), "order."+name, 1, `{"type":"record","namespace":"order","name":"`+name+`","fields":[]}`))
	}
	reader := &countingReader{StaticReader: NewStaticReader(regs...)}
	c := New(reader, Config{SchemasCachedMax: 2})
	for range 3 {
		for i, reg := range regs {
			if _, err := c.Inspect(context.Background(), reg.Type, AppendConfluent(nil, int32(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := 2 + 3*2; reader.lookUps != want {
		t.Errorf("got %d look-ups, want %d", reader.lookUps, want)
	}
}

func TestInspectDoesNotAllocate(t *testing.T) {
	c := New(NewStaticReader(register(t, 7, "order.Counted", 1, counted)), Config{})
	ctx, value := context.Background(), []byte{0, 0, 0, 0, 7, 6}
	if got := testing.AllocsPerRun(100, func() {
		if _, err := c.Inspect(ctx, "order.Counted", value); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestDecodingWhatNobodyInspectedIsAFaultOfTheProgram(t *testing.T) {
	t.Parallel()
	_, err := New(NewStaticReader(), Config{}).DecodeMap(Payload{})
	if !errors.Is(err, ErrBinding) || errors.Is(err, ErrBadData) {
		t.Errorf("got %v, want ErrBinding", err)
	}
}

func TestRegisterTextChecksNameAndVersion(t *testing.T) {
	t.Parallel()
	for name, try := range map[string]func() (*Registered, error){
		"another name":   func() (*Registered, error) { return RegisterText(1, "order.Other", 1, "", counted) },
		"no record":      func() (*Registered, error) { return RegisterText(1, "string", 1, "", `"string"`) },
		"version zero":   func() (*Registered, error) { return RegisterText(1, "order.Counted", 0, "", counted) },
		"does not parse": func() (*Registered, error) { return RegisterText(1, "order.Counted", 1, "", "{") },
	} {
		if reg, err := try(); err == nil {
			t.Errorf("%s: got %+v, want an error", name, reg)
		}
	}
	reg, err := RegisterText(1, "order.Counted", 1, "", counted)
	if err != nil || reg.Kind != event.KindEvent {
		t.Errorf("kind from the text: got %+v, %v, want event", reg, err)
	}
	if reg, err = RegisterText(1, "order.Counted", 1, event.KindCommand, counted); err != nil || reg.Kind != event.KindCommand {
		t.Errorf("kind as told: got %+v, %v, want command", reg, err)
	}
}

func TestStaticReaderFindsByEveryKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v1 := register(t, 1, "order.Counted", 1, counted)
	v2 := register(t, 2, "order.Counted", 2, `{"type":"record","namespace":"order","name":"Counted","fields":[{"name":"n","type":"int"},{"name":"m","type":"int","default":0}]}`)
	v3 := register(t, 3, "order.Counted", 3, counted) // the same canonical form as v1
	r := NewStaticReader(v1).With(v3, v2)
	for name, c := range map[string]struct {
		got  func() (*Registered, error)
		want *Registered
	}{
		"id":          {func() (*Registered, error) { return r.ByID(ctx, 2) }, v2},
		"latest":      {func() (*Registered, error) { return r.Latest(ctx, "order.Counted") }, v3},
		"version":     {func() (*Registered, error) { return r.Version(ctx, "order.Counted", 1) }, v1},
		"fingerprint": {func() (*Registered, error) { return r.ByFingerprint(ctx, v1.Schema.Fingerprint()) }, v3},
	} {
		if got, err := c.got(); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want version %d", name, got, err, c.want.Version)
		}
	}
	for name, got := range map[string]func() (*Registered, error){
		"id": func() (*Registered, error) { return r.ByID(ctx, 9) }, "latest": func() (*Registered, error) { return r.Latest(ctx, "x") },
		"version": func() (*Registered, error) { return r.Version(ctx, "order.Counted", 9) }, "fingerprint": func() (*Registered, error) { return r.ByFingerprint(ctx, 9) },
	} {
		if reg, err := got(); !errors.Is(err, ErrUnknownSchema) {
			t.Errorf("absent %s: got %v, %v, want ErrUnknownSchema", name, reg, err)
		}
	}
}
