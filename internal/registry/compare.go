package registry

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/foldstream/foldstream/pkg/codec"
)

// State says where a version of a type stands.
type State string

// The states of a Difference. Versions that are equal here and there have none.
const (
	StateNew     State = "new"     // here, not registered
	StateMissing State = "missing" // registered, not here
	StateChanged State = "changed" // here otherwise than registered, which is a conflict
	StateDoc     State = "doc"     // only doc texts differ, which registering does not change
)

// Difference is one version of a type that is not the same here and in the registry.
type Difference struct {
	Type    string `json:"type"`
	Version int    `json:"version"`
	State   State  `json:"state"`
	// Against is the version that Changes are counted from: the one before for a new one, itself
	// for a changed one; 0 for the first and for a missing one.
	Against  int               `json:"against,omitempty"`
	Changes  []Change          `json:"changes"`
	Backward []Incompatibility `json:"backward"`           // why this version cannot read what an earlier one wrote
	Forward  []Incompatibility `json:"forward"`            // why an earlier version cannot read what this one writes; never a conflict
	Conflict string            `json:"conflict,omitempty"` // why this cannot be registered; empty: it can
}

// Incompatibility is one reason against a pair of versions.
type Incompatibility struct {
	Version int    `json:"version"` // the other one
	Path    string `json:"path"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Compare holds a project's schemas to what is registered, ordered by type and version. It asks
// nothing and changes nothing. Compatibility is looked at with the earlier versions that the
// policy names, registered or not.
func Compare(here []Submission, registered []*codec.Registered, policy Compatibility) ([]Difference, error) {
	c := comparison{policy: policy, mine: byVersions{}, theirs: byVersions{}}
	var faults []error
	for _, s := range here {
		schema, err := codec.Parse(s.Text)
		if err == nil {
			err = c.mine.put(&codec.Registered{Type: s.Type, Version: s.Version, Kind: s.Kind, Schema: schema})
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("compare %s: %w", label(s), err))
		}
	}
	for _, reg := range registered {
		if err := c.theirs.put(reg); err != nil {
			faults = append(faults, fmt.Errorf("compare the registered %s version %d: %w", reg.Type, reg.Version, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return c.all()
}

// byVersions holds registrations by type and version.
type byVersions map[string]map[int]*codec.Registered

// put writes the kind into a text that does not say it: one registry keeps it beside the text, the
// other in it, and a project may leave it to the category's mode.
func (b byVersions) put(reg *codec.Registered) error {
	if reg.Schema.Prop(PropKind) == "" && reg.Kind != "" {
		text, err := withKind(reg.Schema.Text(), reg.Schema, reg.Kind)
		if err != nil {
			return err
		}
		schema, err := codec.Parse(text)
		if err != nil {
			return err
		}
		reg = &codec.Registered{ID: reg.ID, Type: reg.Type, Version: reg.Version, Kind: reg.Kind, Schema: schema}
	}
	if b[reg.Type] == nil {
		b[reg.Type] = map[int]*codec.Registered{}
	}
	b[reg.Type][reg.Version] = reg
	return nil
}

type comparison struct {
	policy       Compatibility
	mine, theirs byVersions
}

func (c comparison) all() ([]Difference, error) {
	types := maps.Collect(maps.All(c.mine))
	maps.Copy(types, c.theirs)
	differences := []Difference{}
	for _, typ := range slices.Sorted(maps.Keys(types)) {
		both := maps.Clone(c.mine[typ])
		if both == nil {
			both = map[int]*codec.Registered{}
		}
		maps.Copy(both, c.theirs[typ]) // what is registered stands
		for _, v := range slices.Sorted(maps.Keys(both)) {
			d, err := c.one(typ, v, both)
			if err != nil {
				return nil, err
			}
			if d != nil {
				differences = append(differences, *d)
			}
		}
	}
	return differences, nil
}

// one returns nil where a version is equal here and there.
func (c comparison) one(typ string, version int, both map[int]*codec.Registered) (*Difference, error) {
	mine, theirs := c.mine[typ][version], c.theirs[typ][version]
	d := &Difference{Type: typ, Version: version, Changes: []Change{}, Backward: []Incompatibility{}, Forward: []Incompatibility{}}
	switch {
	case mine == nil:
		d.State = StateMissing
		return d, nil
	case theirs == nil:
		return d, d.isNew(mine, earlier(both, version), c.policy)
	case SameSchema(mine.Schema, theirs.Schema) && mine.Kind == theirs.Kind:
		return d.onlyDoc(mine, theirs)
	}
	return d, d.isChanged(mine, theirs, slices.Max(slices.Collect(maps.Keys(both))))
}

func earlier(both map[int]*codec.Registered, version int) []*codec.Registered {
	var out []*codec.Registered
	for _, v := range slices.Sorted(maps.Keys(both)) {
		if v < version {
			out = append(out, both[v])
		}
	}
	return out
}

func (d *Difference) isNew(mine *codec.Registered, before []*codec.Registered, policy Compatibility) error {
	d.State = StateNew
	if len(before) == 0 {
		return nil
	}
	last := before[len(before)-1]
	d.Against = last.Version
	if err := d.diff(last, mine); err != nil {
		return err
	}
	for _, other := range policy.Held(before) {
		d.bothWays(mine, other)
	}
	if len(d.Backward) > 0 {
		d.Conflict = fmt.Sprintf("version %d cannot read what an earlier one wrote, as %s demands", d.Version, policy.withDefault())
	}
	d.checkKind(mine, last)
	return nil
}

func (d *Difference) isChanged(mine, theirs *codec.Registered, highest int) error {
	d.State, d.Against = StateChanged, d.Version
	if err := d.diff(theirs, mine); err != nil {
		return err
	}
	d.bothWays(mine, theirs)
	if !SameSchema(mine.Schema, theirs.Schema) {
		d.Conflict = fmt.Sprintf("version %d is registered with another text, and a version never changes: take the change back, and put it into version %d", d.Version, highest+1)
		if !slices.ContainsFunc(d.Changes, func(c Change) bool { return c.Kind != ChangeDoc }) {
			d.Changes = append(d.Changes, Change{Path: mine.Schema.Name(), Kind: ChangeOtherForm})
		}
	}
	d.checkKind(mine, theirs)
	return nil
}

func (d *Difference) checkKind(mine, theirs *codec.Registered) {
	if mine.Kind == theirs.Kind || theirs.Kind == "" || mine.Kind == "" {
		return
	}
	d.Conflict = fmt.Sprintf("the type is registered as kind %q, and a type's kind never changes: name a new type for kind %q", theirs.Kind, mine.Kind)
}

// onlyDoc returns nil where not even a doc text differs.
func (d *Difference) onlyDoc(mine, theirs *codec.Registered) (*Difference, error) {
	d.State, d.Against = StateDoc, d.Version
	if err := d.diff(theirs, mine); err != nil || len(d.Changes) == 0 {
		return nil, err
	}
	return d, nil
}

func (d *Difference) diff(from, to *codec.Registered) error {
	changes, err := Diff(from.Schema, to.Schema)
	if changes != nil {
		d.Changes = changes
	}
	return err
}

func (d *Difference) bothWays(mine, other *codec.Registered) {
	for _, f := range codec.CheckCompatible(mine.Schema, other.Schema) {
		d.Backward = append(d.Backward, Incompatibility{other.Version, f.Path, f.Message, f.Remedy})
	}
	for _, f := range codec.CheckCompatible(other.Schema, mine.Schema) {
		d.Forward = append(d.Forward, Incompatibility{other.Version, f.Path, f.Message, f.Remedy})
	}
}
