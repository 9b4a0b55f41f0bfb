package codec

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/twmb/avro"
)

// plan is how what one writer version wrote becomes the binding's version. Made once per
// writer, since resolving two schemas takes tens of microseconds.
//
//	writer v1, upcasters from 2 and 3, binding v5:
//	body ─resolve 1→2─► map ─up 2→3─► map ─up 3→4─► map ─encode 4─► body ─resolve 4→5─► struct
type plan struct {
	steps []step
	last  *avro.Schema // decodes the body that the steps leave
	fault error        // the two cannot be read; told for each record
}

// step decodes a body to a map, changes it, and encodes it again.
type step struct {
	decode    *avro.Schema
	upcasters []numbered
	encode    *Registered
}

type numbered struct {
	from int
	up   Upcaster
}

func (b *Binding) plan(writer *Registered) *plan {
	p := &plan{}
	at := writer
	for {
		from, ok := b.nextUpcaster(at.Version)
		if !ok {
			break
		}
		s := step{}
		if s.decode, p.fault = resolve(at.Schema, b.steps[from].Schema); p.fault != nil {
			return p
		}
		for b.def.Upcasters[from] != nil && from < b.reg.Version {
			s.upcasters = append(s.upcasters, numbered{from, b.def.Upcasters[from]})
			from++
		}
		s.encode = b.steps[from]
		p.steps = append(p.steps, s)
		at = s.encode
	}
	p.last, p.fault = resolve(at.Schema, b.reg.Schema)
	return p
}

// nextUpcaster finds the lowest version from version on that has an upcaster.
func (b *Binding) nextUpcaster(version int) (int, bool) {
	for ; version < b.reg.Version; version++ {
		if b.def.Upcasters[version] != nil {
			return version, true
		}
	}
	return 0, false
}

// resolve returns what decodes a writer's body to the reader's fields.
func resolve(writer, reader *Schema) (*avro.Schema, error) {
	if writer == reader || writer.text == reader.text {
		return reader.avro, nil
	}
	if faults := CheckCompatible(reader, writer); len(faults) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrIncompatible, joinFaults(faults))
	}
	resolved, err := avro.Resolve(writer.avro, reader.avro)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	return resolved, nil
}

func joinFaults(faults []Fault) string {
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.String()
	}
	return strings.Join(texts, "; ")
}

// run returns the value, or the operation that failed and why.
func (p *plan) run(body []byte, goType reflect.Type) (any, string, error) {
	for _, s := range p.steps {
		var m map[string]any
		if err := decode(s.decode, body, &m); err != nil {
			return nil, OpDecode, err
		}
		var err error
		if body, err = s.raise(m); err != nil {
			return nil, OpUpcast, err
		}
	}
	if p.fault != nil {
		return nil, OpDecode, p.fault
	}
	v, err := decodeNew(p.last, body, goType)
	return v, OpDecode, err
}

func (s step) raise(m map[string]any) ([]byte, error) {
	for _, u := range s.upcasters {
		var err error
		if m, err = u.call(m); err != nil {
			return nil, fmt.Errorf("%w: from version %d: %w", ErrUpcast, u.from, err)
		}
	}
	body, err := encode(s.encode.Schema.avro, nil, m)
	if err != nil {
		return nil, fmt.Errorf("%w: its result is no version %d: %w", ErrUpcast, s.encode.Version, err)
	}
	return body, nil
}

func (u numbered) call(m map[string]any) (out map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked("it", r)
		}
	}()
	if out, err = u.up(m); err == nil && out == nil {
		err = fmt.Errorf("it returned no map")
	}
	return out, err
}
