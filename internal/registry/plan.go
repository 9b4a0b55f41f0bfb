package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/pkg/codec"
)

// SubmissionsMax is the highest number of schemas of one registration.
const SubmissionsMax = 5_000

// candidate is a submission whose text is parsed and whose type and kind are settled.
type candidate struct {
	Submission
	schema *codec.Schema
}

// parse checks all that can be said of submissions without knowing the registry, and joins all
// faults.
func parse(submissions []Submission) ([]candidate, error) {
	if len(submissions) > SubmissionsMax {
		return nil, refused{fmt.Errorf("%d schemas in one registration, at most %d are allowed", len(submissions), SubmissionsMax)}
	}
	var faults []error
	candidates := make([]candidate, 0, len(submissions))
	for _, s := range submissions {
		c, err := parseOne(s)
		if err != nil {
			faults = append(faults, refusal(s, err))
		}
		candidates = append(candidates, c)
	}
	return candidates, errors.Join(faults...)
}

func parseOne(s Submission) (candidate, error) {
	if err := checkType(s.Type); err != nil {
		return candidate{}, err
	}
	if s.Version < 0 {
		return candidate{}, fmt.Errorf("version %d: want 1 or more, or 0 for the next", s.Version)
	}
	schema, err := codec.Parse(s.Text)
	if err != nil {
		return candidate{}, err
	}
	if !schema.IsRecord() {
		return candidate{}, errors.New("the schema is no record: wrap it in one, only records are registered")
	}
	typ, kind := Describe(schema, s.Kind)
	if typ != s.Type {
		return candidate{}, fmt.Errorf("the schema says it is of type %q: name the record %s, or set its property %s", clip(typ), s.Type, PropType)
	}
	if s.Kind != "" && kind != s.Kind {
		return candidate{}, fmt.Errorf("submitted as kind %q, but the schema's %s says %q: they must agree", s.Kind, PropKind, clip(string(kind)))
	}
	if err := checkKind(kind); err != nil {
		return candidate{}, err
	}
	s.Kind = kind
	return candidate{Submission: s, schema: schema}, lint(s, schema)
}

func label(s Submission) string {
	if s.Version == 0 {
		return fmt.Sprintf("%q", clip(s.Type))
	}
	return fmt.Sprintf("%q version %d", clip(s.Type), s.Version)
}

// plan is what a registration would do.
type plan struct {
	results []*codec.Registered // one per candidate, in order
	added   []*codec.Registered // those that are new, ids ascending
}

// makePlan decides ids and versions of candidates against what is registered. It changes
// nothing of known. All faults are joined; with one, nothing may be registered.
func makePlan(known *index, candidates []candidate, policy Compatibility) (plan, error) {
	next := known.clone()
	p := plan{results: make([]*codec.Registered, len(candidates))}
	var faults []error
	for _, i := range inOrder(candidates) {
		reg, fresh, err := place(next, candidates[i], policy)
		if err != nil {
			faults = append(faults, refusal(candidates[i].Submission, err))
			continue
		}
		p.results[i] = reg
		if fresh {
			p.added = append(p.added, reg)
		}
	}
	return p, errors.Join(faults...)
}

// inOrder returns the candidates' positions by type and version, those without one last, so that
// the order in which files are given does not matter.
func inOrder(candidates []candidate) []int {
	order := make([]int, len(candidates))
	for i := range order {
		order[i] = i
	}
	key := func(c candidate) int {
		if c.Version == 0 {
			return int(^uint(0) >> 1)
		}
		return c.Version
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(candidates[a].Type, candidates[b].Type), cmp.Compare(key(candidates[a]), key(candidates[b])))
	})
	return order
}

// place finds or makes the registration of one candidate; a new one is added to x.
func place(x *index, c candidate, policy Compatibility) (reg *codec.Registered, fresh bool, err error) {
	if held := x.latest(c.Type); held != nil && held.Kind != c.Kind {
		return nil, false, fmt.Errorf("the type is registered as kind %q, and a type's kind never changes: register a new type for kind %q", held.Kind, c.Kind)
	}
	if other, taken := x.typeOfName[c.schema.Name()]; taken && other != c.Type {
		return nil, false, fmt.Errorf("the record name %s belongs to type %s already: a record name has one type", c.schema.Name(), other)
	}
	if held, err := existing(x, c); held != nil || err != nil {
		return held, false, err
	}
	version := len(x.byType[c.Type]) + 1
	if latest := x.latest(c.Type); latest != nil {
		version = latest.Version + 1
	}
	if c.Version != 0 && c.Version != version {
		return nil, false, fmt.Errorf("the next version is %d: versions have no gap", version)
	}
	if err := checkCompatible(c, version, x.byType[c.Type], policy); err != nil {
		return nil, false, err
	}
	if x.highestID == 1<<31-1 {
		return nil, false, errors.New("the ids are used up")
	}
	reg = &codec.Registered{ID: x.highestID + 1, Type: c.Type, Version: version, Kind: c.Kind, Schema: c.schema}
	return reg, true, x.add(reg)
}

// existing returns the registration that a candidate asks for, when it is there.
func existing(x *index, c candidate) (*codec.Registered, error) {
	if c.Version == 0 {
		return x.same(c.Type, c.Text), nil
	}
	held := x.version(c.Type, c.Version)
	if held != nil && normal(held.Schema.Text()) != normal(c.Text) {
		return nil, fmt.Errorf("version %d is registered with another text, and a version never changes: take the change back, and put it into version %d",
			c.Version, x.latest(c.Type).Version+1)
	}
	return held, nil
}
