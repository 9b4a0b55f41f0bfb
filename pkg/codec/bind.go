package codec

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"github.com/twmb/avro"
)

// Binding is a type tied to one version of its schema and to a Go struct, ready to decode what
// any version wrote and to encode what this version writes. Made by Codec.Bind.
type Binding struct {
	def    TypeDef
	reg    *Registered
	limits Limits
	steps  map[int]*Registered // the versions that upcasters lead from and to
	plans  grower[int32, *plan]
	fresh  sync.Pool // of pointers to zeroed GoType, for Append
}

// Bind looks up version def.Version of def.Name and checks that it is of def.Kind and that
// def.GoType has a field for every field of the schema, and no tag that the schema lacks.
//
// A fault of the program wraps ErrBinding; a version that is not registered ErrUnknownSchema;
// anything else comes from the Reader.
func (c *Codec) Bind(ctx context.Context, def TypeDef) (*Binding, error) {
	fail := func(id int32, err error) (*Binding, error) {
		return nil, &Error{Op: OpBind, Type: def.Name, SchemaID: id, Err: err}
	}
	reg, err := c.reader.Version(ctx, def.Name, def.Version)
	if err != nil {
		return fail(0, fmt.Errorf("version %d: %w", def.Version, err))
	}
	if def.Kind != "" && reg.Kind != "" && def.Kind != reg.Kind {
		return fail(reg.ID, fmt.Errorf("%w: the program says %s, version %d is registered as %s", ErrBinding, def.Kind, reg.Version, reg.Kind))
	}
	b := &Binding{def: def, reg: reg, limits: c.config.Limits, steps: map[int]*Registered{}}
	b.plans.max = c.config.SchemasCachedMax
	if err := b.loadSteps(ctx, c.reader); err != nil {
		return fail(reg.ID, err)
	}
	if def.GoType == nil {
		return b, nil
	}
	if err := checkStruct(reg.Schema, def.GoType); err != nil {
		return fail(reg.ID, err)
	}
	b.fresh.New = func() any { return reflect.New(def.GoType).Interface() }
	return b, nil
}

func (b *Binding) loadSteps(ctx context.Context, reader Reader) error {
	for from := range b.def.Upcasters {
		if from < 1 || from >= b.def.Version {
			return fmt.Errorf("%w: an upcaster from version %d cannot lead to version %d", ErrBinding, from, b.def.Version)
		}
		for _, version := range []int{from, from + 1} {
			reg, err := reader.Version(ctx, b.def.Name, version)
			if err != nil {
				return fmt.Errorf("upcaster from version %d: version %d: %w", from, version, err)
			}
			b.steps[version] = reg
		}
	}
	return nil
}

// Registered returns the version that the binding encodes and decodes to.
func (b *Binding) Registered() *Registered { return b.reg }

// Decode returns a value of GoType (not a pointer), or a map[string]any where GoType is nil.
//
// What the binding's own version wrote is decoded directly. What a lower one wrote goes through
// the upcasters, where one is registered from that version or a later one; through Avro's
// resolution of writer to reader where none is. Errors are *Error and wrap ErrBadData.
func (b *Binding) Decode(p Payload) (any, error) {
	if err := p.made(); err != nil {
		return nil, err
	}
	if p.Registered.Type != b.reg.Type {
		err := fmt.Errorf("%w: it is registered for %s", ErrTypeMismatch, p.Registered.Type)
		return nil, &Error{Op: OpDecode, Type: b.reg.Type, SchemaID: p.Registered.ID, Err: err}
	}
	plan, ok := b.plans.get(p.Registered.ID)
	if !ok {
		plan = b.plan(p.Registered)
		b.plans.put(p.Registered.ID, plan)
	}
	v, op, err := plan.run(p.Body, b.def.GoType)
	if err != nil {
		return nil, &Error{Op: op, Type: b.reg.Type, SchemaID: p.Registered.ID, Err: err}
	}
	return v, nil
}

// Append appends v, a value of GoType (or a map where GoType is nil), in Confluent framing under
// the binding's own schema id. Equal values have equal bytes: the entries of maps are in the order
// of their keys. What it writes has passed the guard, so that no reader of ours refuses it later. On an error dst is returned as it was; the error wraps ErrBadData.
func (b *Binding) Append(dst []byte, v any) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return dst, &Error{Op: OpEncode, Type: b.reg.Type, SchemaID: b.reg.ID, Err: err}
	}
	if got := reflect.TypeOf(v); b.def.GoType != nil && got != b.def.GoType {
		return fail(fmt.Errorf("%w: got a %v, want a %v", ErrBadData, got, b.def.GoType))
	}
	out, err := b.encode(AppendConfluent(dst, b.reg.ID), v)
	if err != nil {
		return fail(err)
	}
	if err := b.reg.Schema.check(out[len(dst)+ConfluentHeaderBytes:], b.limits); err != nil {
		return fail(err)
	}
	if start := len(dst) + ConfluentHeaderBytes; b.reg.Schema.root.holdsMap {
		out = append(out[:start], b.reg.Schema.orderMaps(out[start:])...)
	}
	return out, nil
}

// encode lends v an address, which the Avro library needs for its fast path.
func (b *Binding) encode(dst []byte, v any) ([]byte, error) {
	if b.def.GoType == nil {
		return encode(b.reg.Schema.avro, dst, v)
	}
	p := b.fresh.Get()
	defer b.fresh.Put(p)
	elem := reflect.ValueOf(p).Elem()
	elem.Set(reflect.ValueOf(v))
	out, err := encode(b.reg.Schema.avro, dst, p)
	elem.SetZero()
	return out, err
}

// decode decodes a whole body. A panic, which a Go type's own UnmarshalText could raise, is a
// fault of this record and must not end the process.
func decode(s *avro.Schema, body []byte, into any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = badData(panicked("decoding", r))
		}
	}()
	rest, err := s.Decode(body, into)
	if err != nil {
		return badData(err)
	}
	if len(rest) > 0 {
		return badData(fmt.Errorf("%d bytes follow the value", len(rest)))
	}
	return nil
}

func encode(s *avro.Schema, dst []byte, v any) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = badData(panicked("encoding", r))
		}
	}()
	out, err = s.AppendEncode(dst, v)
	if err != nil {
		return nil, badData(err)
	}
	return out, nil
}

// decodeNew decodes into a new value of goType, or a map where goType is nil.
func decodeNew(s *avro.Schema, body []byte, goType reflect.Type) (any, error) {
	if goType == nil {
		var m map[string]any
		err := decode(s, body, &m)
		return m, err
	}
	p := reflect.New(goType)
	if err := decode(s, body, p.Interface()); err != nil {
		return nil, err
	}
	return p.Elem().Interface(), nil
}
