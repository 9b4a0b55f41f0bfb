package registry

import (
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/pkg/codec"
)

// ErrRefused is wrapped by what Register says of submissions that cannot stand: the same ones
// would be refused again. What does not wrap it is infrastructure, and may pass when tried again.
var ErrRefused = errors.New("the submission cannot be registered")

// refused marks an error without changing its text.
type refused struct{ error }

func (r refused) Unwrap() []error { return []error{ErrRefused, r.error} }

// CheckSubject refuses a subject that is named after a topic, and says what to do instead.
func CheckSubject(subject string) error {
	if topicSubject(subject) {
		return checkType(subject)
	}
	return nil
}

// SameSchema says whether two schemas are one and the same to a registry: they differ in white
// space, in the order of keys, and in doc texts at most.
func SameSchema(a, b *codec.Schema) bool { return normal(a.Text()) == normal(b.Text()) }

// SameBytes says whether what is written with one schema is written with the other, too: names,
// types, logical types and the order of fields are equal. Defaults, aliases, doc texts and
// properties, which only readers look at, may differ.
func SameBytes(a, b *codec.Schema) bool {
	return a.Canonical() == b.Canonical() && len(codec.CheckCompatible(a, b)) == 0
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

func refusal(s Submission, err error) error {
	return refused{fmt.Errorf("register %s: %w", label(s), err)}
}
