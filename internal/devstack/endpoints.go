package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// EndpointsFile is the file in a stack's data directory that tells other
// programs where the stack listens.
const EndpointsFile = "endpoints.json"

// Endpoints says where a running stack listens. Fields may be added.
type Endpoints struct {
	// Brokers are the addresses to bootstrap from, host:port.
	Brokers []string `json:"brokers"`
	// DSN connects to Postgres. It may hold a password.
	DSN string `json:"dsn"`
	// HTTP is the base address of each service by its name, such as
	// "query": "http://127.0.0.1:8080".
	HTTP map[string]string `json:"http"`
	// Namespace is the project's.
	Namespace string `json:"namespace"`
	// PID is the process that runs the stack; 0 leaves a reader without a
	// way to tell that the stack died.
	PID int `json:"pid"`
	// StartedAt is when the stack was ready.
	StartedAt time.Time `json:"started_at,omitzero"`
}

// WriteEndpoints writes the file at once: a reader sees all of it or none. Only
// the user may read it.
func WriteEndpoints(dir string, e Endpoints) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the endpoints of the stack: %w", err)
	}
	if e.Brokers == nil {
		e.Brokers = []string{}
	}
	if e.HTTP == nil {
		e.HTTP = map[string]string{}
	}
	if err := writeJSON(filepath.Join(dir, EndpointsFile), e, 0o600); err != nil {
		return fmt.Errorf("write the endpoints of the stack: %w", err)
	}
	return nil
}

// ReadEndpoints finds the stack that runs on dir. The error wraps
// [ErrNotRunning] when there is none, or when its process is gone.
func ReadEndpoints(dir string) (Endpoints, error) {
	var e Endpoints
	err := readJSON(filepath.Join(dir, EndpointsFile), &e)
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoints{}, fmt.Errorf("%w on %s: start it by `foldstream dev --data-dir %s`", ErrNotRunning, dir, dir)
	}
	if err != nil {
		return Endpoints{}, fmt.Errorf("read the endpoints of the stack: %w", err)
	}
	if e.PID != 0 && !processAlive(e.PID) {
		return Endpoints{}, fmt.Errorf("%w on %s: its process %d is gone; start it by `foldstream dev --data-dir %s`",
			ErrNotRunning, dir, e.PID, dir)
	}
	return e, nil
}

// RemoveEndpoints says that the stack on dir no longer runs. There need not be
// a file.
func RemoveEndpoints(dir string) error {
	err := os.Remove(filepath.Join(dir, EndpointsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the endpoints of the stack: %w", err)
	}
	return nil
}
