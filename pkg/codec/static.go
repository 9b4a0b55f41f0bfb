package codec

import (
	"context"
	"fmt"
	"maps"

	"github.com/foldstream/foldstream/pkg/event"
)

// RegisterText makes a Registered of a schema text. The schema must be a record whose full name
// is typ. An empty kind is taken from the text's property fs.kind.
func RegisterText(id int32, typ string, version int, kind event.Kind, text string) (*Registered, error) {
	s, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s version %d: %w", typ, version, err)
	}
	if !s.IsRecord() || s.Name() != typ {
		return nil, fmt.Errorf("%s version %d: the schema is a %s named %q; register a record whose full name is the type", typ, version, s.root.kind, s.Name())
	}
	if version < 1 {
		return nil, fmt.Errorf("%s: version %d; count from 1", typ, version)
	}
	if kind == "" {
		kind = event.Kind(s.Prop("fs.kind"))
	}
	return &Registered{ID: id, Type: typ, Version: version, Kind: kind, Schema: s}, nil
}

// StaticReader is a Reader over schemas that are known from the start, for tests and for
// programs without a registry. It is immutable.
type StaticReader struct {
	byID          map[int32]*Registered
	byFingerprint map[Fingerprint]*Registered
	byVersion     map[string]map[int]*Registered
	latest        map[string]*Registered
}

// NewStaticReader returns a reader over regs. Of two with one id or one (type, version) the
// later counts; a fingerprint finds the highest version that has it.
func NewStaticReader(regs ...*Registered) *StaticReader {
	r := &StaticReader{
		byID: map[int32]*Registered{}, byFingerprint: map[Fingerprint]*Registered{},
		byVersion: map[string]map[int]*Registered{}, latest: map[string]*Registered{},
	}
	for _, reg := range regs {
		r.byID[reg.ID] = reg
		keepHighest(r.byFingerprint, reg.Schema.Fingerprint(), reg)
		keepHighest(r.latest, reg.Type, reg)
		if r.byVersion[reg.Type] == nil {
			r.byVersion[reg.Type] = map[int]*Registered{}
		}
		r.byVersion[reg.Type][reg.Version] = reg
	}
	return r
}

func keepHighest[K comparable](m map[K]*Registered, key K, reg *Registered) {
	if held, ok := m[key]; !ok || reg.Version >= held.Version {
		m[key] = reg
	}
}

// With returns a reader that also knows regs.
func (r *StaticReader) With(regs ...*Registered) *StaticReader {
	all := make([]*Registered, 0, len(r.byID)+len(regs))
	for reg := range maps.Values(r.byID) {
		all = append(all, reg)
	}
	return NewStaticReader(append(all, regs...)...)
}

// ByID implements Reader.
func (r *StaticReader) ByID(_ context.Context, id int32) (*Registered, error) {
	if reg, ok := r.byID[id]; ok {
		return reg, nil
	}
	return nil, fmt.Errorf("%w: id %d", ErrUnknownSchema, id)
}

// ByFingerprint implements Reader.
func (r *StaticReader) ByFingerprint(_ context.Context, fingerprint Fingerprint) (*Registered, error) {
	if reg, ok := r.byFingerprint[fingerprint]; ok {
		return reg, nil
	}
	return nil, fmt.Errorf("%w: fingerprint %s", ErrUnknownSchema, fingerprint)
}

// Latest implements Reader.
func (r *StaticReader) Latest(_ context.Context, typ string) (*Registered, error) {
	if reg, ok := r.latest[typ]; ok {
		return reg, nil
	}
	return nil, fmt.Errorf("%w: type %q", ErrUnknownSchema, clip(typ))
}

// Version implements Reader.
func (r *StaticReader) Version(_ context.Context, typ string, version int) (*Registered, error) {
	if reg, ok := r.byVersion[typ][version]; ok {
		return reg, nil
	}
	return nil, fmt.Errorf("%w: type %q version %d", ErrUnknownSchema, clip(typ), version)
}
