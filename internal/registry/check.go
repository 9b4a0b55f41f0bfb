package registry

import (
	"errors"
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/pkg/codec"
)

// Compatibility says which earlier versions a new one must be able to read.
type Compatibility string

// The policies. The zero value means BackwardTransitive: a log is read from its start, so every
// version ever written must stay readable.
const (
	BackwardTransitive Compatibility = "BACKWARD_TRANSITIVE"
	Backward           Compatibility = "BACKWARD"
	None               Compatibility = "NONE"
)

func (c Compatibility) withDefault() Compatibility {
	if c == "" {
		return BackwardTransitive
	}
	return c
}

func (c Compatibility) validate() error {
	if slices.Contains([]Compatibility{BackwardTransitive, Backward, None}, c) {
		return nil
	}
	return fmt.Errorf("compatibility %q: want %s, %s or %s", clip(string(c)), BackwardTransitive, Backward, None)
}

// Held are the earlier versions, ascending, that a new one must be able to read.
func (c Compatibility) Held(earlier []*codec.Registered) []*codec.Registered {
	switch c.withDefault() {
	case None:
		return nil
	case Backward:
		return earlier[max(0, len(earlier)-1):]
	}
	return earlier
}

// LintError lists what makes a schema unfit to be registered, although it parses.
type LintError struct {
	Type   string
	Faults []codec.Fault
}

func (e *LintError) Error() string {
	return e.Type + " is not fit to be registered: " + joinFaults(e.Faults)
}

func joinFaults(faults []codec.Fault) string {
	text := ""
	for i, f := range faults {
		if i > 0 {
			text += "; "
		}
		text += f.String()
	}
	return text
}

func lint(s Submission, schema *codec.Schema) error {
	if faults := codec.Lint(schema); len(faults) > 0 {
		return &LintError{Type: s.Type, Faults: faults}
	}
	return nil
}

// checkCompatible joins a *codec.CompatibilityError for each earlier version that c could not read.
func checkCompatible(c candidate, version int, earlier []*codec.Registered, policy Compatibility) error {
	var faults []error
	for _, e := range policy.Held(earlier) {
		if found := codec.CheckCompatible(c.schema, e.Schema); len(found) > 0 {
			faults = append(faults, incompatible(c.Type, version, e.Version, found))
		}
	}
	return errors.Join(faults...)
}

func incompatible(typ string, version, against int, found []codec.Fault) error {
	e := &codec.CompatibilityError{Type: typ, Version: version, Against: against}
	for _, f := range found {
		e.Faults = append(e.Faults, f.String())
	}
	return e
}
