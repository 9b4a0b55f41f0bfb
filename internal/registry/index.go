package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
)

// index is a set of registrations, found by id, fingerprint, type and version. It is not safe
// for concurrent change.
type index struct {
	byID          map[int32]*codec.Registered
	byFingerprint map[codec.Fingerprint]*codec.Registered
	byType        map[string][]*codec.Registered // ascending versions
	typeOfName    map[string]string              // a record's full name → its type
	highestID     int32
}

func newIndex() *index {
	return &index{
		byID: map[int32]*codec.Registered{}, byFingerprint: map[codec.Fingerprint]*codec.Registered{},
		byType: map[string][]*codec.Registered{}, typeOfName: map[string]string{},
	}
}

func (x *index) clone() *index {
	out := &index{
		byID: maps.Clone(x.byID), byFingerprint: maps.Clone(x.byFingerprint),
		byType: make(map[string][]*codec.Registered, len(x.byType)), typeOfName: maps.Clone(x.typeOfName), highestID: x.highestID,
	}
	for typ, regs := range x.byType {
		out.byType[typ] = slices.Clone(regs)
	}
	return out
}

// add takes a registration in; the same one again is nothing. What is there already stays.
func (x *index) add(reg *codec.Registered) error {
	if held := x.version(reg.Type, reg.Version); held != nil {
		if held.ID != reg.ID || normal(held.Schema.Text()) != normal(reg.Schema.Text()) {
			return fmt.Errorf("%s version %d stands already with id %d and another content or id", reg.Type, reg.Version, held.ID)
		}
		return nil
	}
	if held := x.byID[reg.ID]; held != nil {
		return fmt.Errorf("id %d belongs to %s version %d already", reg.ID, held.Type, held.Version)
	}
	x.byID[reg.ID] = reg
	x.highestID = max(x.highestID, reg.ID)
	x.typeOfName[reg.Schema.Name()] = reg.Type
	regs := slices.Concat(x.byType[reg.Type], []*codec.Registered{reg})
	slices.SortFunc(regs, byVersion)
	x.byType[reg.Type] = regs
	if held := x.byFingerprint[reg.Schema.Fingerprint()]; held == nil || held.Version < reg.Version {
		x.byFingerprint[reg.Schema.Fingerprint()] = reg
	}
	return nil
}

func (x *index) latest(typ string) *codec.Registered {
	regs := x.byType[typ]
	if len(regs) == 0 {
		return nil
	}
	return regs[len(regs)-1]
}

func (x *index) version(typ string, version int) *codec.Registered {
	for _, reg := range x.byType[typ] {
		if reg.Version == version {
			return reg
		}
	}
	return nil
}

// same returns the highest version of a type that has this very schema, or nil.
func (x *index) same(typ, text string) *codec.Registered {
	want := normal(text)
	for _, reg := range slices.Backward(x.byType[typ]) {
		if normal(reg.Schema.Text()) == want {
			return reg
		}
	}
	return nil
}

func (x *index) list() []*codec.Registered {
	regs := slices.Collect(maps.Values(x.byID))
	slices.SortFunc(regs, func(a, b *codec.Registered) int {
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		return byVersion(a, b)
	})
	return regs
}

func byVersion(a, b *codec.Registered) int { return a.Version - b.Version }
