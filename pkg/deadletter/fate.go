package deadletter

import (
	"errors"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/jackc/pgx/v5/pgconn"
)

// Verdict is what is to be done about an error.
type Verdict uint8

// The verdicts.
const (
	// Retry: infrastructure; pause and try again, never a letter.
	Retry Verdict = iota
	// Park: the record is at fault; it becomes a letter, and so do the later ones of its key.
	Park
	// Stop: something that no retry mends and no letter may hide; the partition stops loudly.
	Stop
)

// Fate is what an error means for the record in hand.
type Fate struct {
	Verdict Verdict
	Stage   Stage
	Class   string
}

// FateError wraps an error with its fate. Made by Parked, Stopped and Retried.
type FateError struct {
	Fate Fate
	Err  error
}

func (e *FateError) Error() string { return e.Err.Error() }
func (e *FateError) Unwrap() error { return e.Err }

// Parked says that the record is at fault, at this stage.
func Parked(stage Stage, class string, err error) error {
	return &FateError{Fate: Fate{Verdict: Park, Stage: stage, Class: class}, Err: err}
}

// Stopped says that the partition must not go on.
func Stopped(class string, err error) error {
	return &FateError{Fate: Fate{Verdict: Stop, Class: class}, Err: err}
}

// Retried says that the same record may pass later.
func Retried(class string, err error) error {
	return &FateError{Fate: Fate{Verdict: Retry, Class: class}, Err: err}
}

// FateOf classifies an error; it is the only place that does.
//
//   - what Parked, Stopped or Retried wrapped: as said there, outermost first
//   - codec.ErrUpcast: park at stage upcast; codec.ErrBadData: park at stage decode
//   - Postgres refusing data (DataRefused): park at stage sink
//   - anything else (connections, time-outs, a registry that does not answer): retry
func FateOf(err error) Fate {
	var said *FateError
	if errors.As(err, &said) {
		return said.Fate
	}
	if errors.Is(err, codec.ErrUpcast) {
		return Fate{Verdict: Park, Stage: StageUpcast, Class: "upcast"}
	}
	if errors.Is(err, codec.ErrBadData) {
		return Fate{Verdict: Park, Stage: StageDecode, Class: codecClass(err)}
	}
	if state, refused := DataRefused(err); refused {
		return Fate{Verdict: Park, Stage: StageSink, Class: "postgres-" + state}
	}
	return Fate{Verdict: Retry, Class: "infrastructure"}
}

func codecClass(err error) string {
	switch {
	case errors.Is(err, codec.ErrFrame):
		return "framing"
	case errors.Is(err, codec.ErrUnknownSchema):
		return "unknown-schema"
	case errors.Is(err, codec.ErrTypeMismatch):
		return "type-mismatch"
	case errors.Is(err, codec.ErrHostile):
		return "hostile"
	}
	return "bad-data"
}

// DataRefused says whether Postgres refused a statement because of its data, and the SQLSTATE:
// class 22 (data exception), class 23 (constraint), 54000 (a key too long for its index).
func DataRefused(err error) (sqlState string, refused bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", false
	}
	refused = strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") || pg.Code == "54000"
	return pg.Code, refused
}
