package appender

import "github.com/foldstream/foldstream/pkg/event"

// Writer is the ownership of one partition, from a claim to its end.
//
// A refusal (ErrRefused, ErrTooLarge) does not end the writer, but from then on it refuses every
// entry and proof, until Resume: they were decided on state that is not stored.
type Writer struct{}

// ClaimOffset is where the claim record stands.
func (w *Writer) ClaimOffset() int64 { return 0 }

// NextOffset is where the next entry will stand.
func (w *Writer) NextOffset() int64 { return 0 }

// Held is the producer id and epoch of the claim.
func (w *Writer) Held() event.Claim { return event.Claim{} }

// Append gathers one atomic entry; Flush sends.
func (w *Writer) Append(records []Record, done func(Result)) {}

// AppendKeepalive gathers a keep-alive (PROTOCOL W3); Flush sends.
func (w *Writer) AppendKeepalive(done func(Result)) {}

// Prove asks for a proof that is sent after this call (PROTOCOL W15); Flush sends.
func (w *Writer) Prove(done func(error)) {}

// Flush has what is gathered sent, proofs too.
func (w *Writer) Flush() {}

// Resume ends the barrier that a refusal put up: the caller has taken its state back to what is
// acknowledged, and what it appends from now on is decided on that.
func (w *Writer) Resume() {}

// Waiting counts the entries and bytes that are gathered or in flight.
func (w *Writer) Waiting() (entries, bytes int) { return 0, 0 }

// Full says whether Config.WaitingBytesMax is reached: the caller should stop appending.
func (w *Writer) Full() bool { return false }

// Dead is closed when the writer has ended; Err says why.
func (w *Writer) Dead() <-chan struct{} { return nil }

// Err is nil while the writer lives, else wraps ErrFenced, ErrLost or ErrClosed.
func (w *Writer) Err() error { return nil }

// Close ends the writer.
func (w *Writer) Close() {}
