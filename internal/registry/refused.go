package registry

import (
	"errors"
	"fmt"
)

// ErrRefused is wrapped by what Register says of submissions that cannot stand: the same ones
// would be refused again. What does not wrap it is infrastructure, and may pass when tried again.
var ErrRefused = errors.New("the submission cannot be registered")

// refused marks an error without changing its text.
type refused struct{ error }

func (r refused) Unwrap() []error { return []error{ErrRefused, r.error} }

func refusal(s Submission, err error) error {
	return refused{fmt.Errorf("register %s: %w", label(s), err)}
}
