package devstack

import "errors"

var (
	// ErrInUse says that another server, of this or another process, holds
	// the data directory.
	ErrInUse = errors.New("data directory in use")
	// ErrUnavailable says that the machine lacks what a server needs: Java,
	// the server's software, or a client that could fetch it.
	ErrUnavailable = errors.New("not available on this machine")
	// ErrNotRunning says that no stack runs on a data directory.
	ErrNotRunning = errors.New("no stack is running")
	// ErrLogTooLarge says that the embedded broker's log is beyond what it
	// can hold in memory.
	ErrLogTooLarge = errors.New("log too large for the embedded broker")
)
