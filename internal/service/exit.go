package service

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Exit codes, the same for every program and subcommand.
const (
	ExitDone        = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitDenied      = 4
	ExitConflict    = 5
	ExitPartial     = 6 // done in part: some of what was asked for failed
	ExitInterrupted = 130
)

// ErrInterrupted ends what a signal broke off before it was done.
var ErrInterrupted = errors.New("interrupted")

// ExitError gives an error the exit code that the process ends with.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Exitf returns an ExitError with a formatted message; %w wraps.
func Exitf(code int, format string, args ...any) error {
	return &ExitError{Code: code, Err: fmt.Errorf(format, args...)}
}

// ExitCode returns the code of an error: 0 for nil, that of an ExitError, 130 for
// ErrInterrupted and a cancelled context, else 1.
func ExitCode(err error) int {
	var coded *ExitError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &coded):
		return coded.Code
	case errors.Is(err, ErrInterrupted), errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailure
}

// Report writes an error, if there is one, for a person on stderr, and returns its exit code.
func Report(stderr io.Writer, program string, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
	}
	return ExitCode(err)
}
