package devstack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEndpointsRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	want := Endpoints{
		Brokers: []string{"127.0.0.1:9092"}, DSN: "postgres://u:p@127.0.0.1/d", Namespace: "fs",
		HTTP: map[string]string{"query": "http://127.0.0.1:8080"}, PID: os.Getpid(),
		StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if err := WriteEndpoints(dir, want); err != nil {
		t.Fatalf("write: %v", err)
	}
	got, err := ReadEndpoints(dir)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, EndpointsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: got %v (%v), want 0600, for the DSN may hold a password", info.Mode(), err)
	}
}

func TestEndpointsOfNoStack(t *testing.T) {
	gone := exec.Command(os.Args[0], "-test.run=^$")
	if err := gone.Run(); err != nil {
		t.Fatalf("run a process to its end: %v", err)
	}
	cases := map[string]func(t *testing.T, dir string){
		"never started": func(*testing.T, string) {},
		"died": func(t *testing.T, dir string) {
			if err := WriteEndpoints(dir, Endpoints{PID: gone.Process.Pid}); err != nil {
				t.Fatal(err)
			}
		},
		"stopped": func(t *testing.T, dir string) {
			if err := errors.Join(WriteEndpoints(dir, Endpoints{}), RemoveEndpoints(dir), RemoveEndpoints(dir)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			_, err := ReadEndpoints(dir)
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "foldstream dev --data-dir "+dir) {
				t.Errorf("got %v, want ErrNotRunning with the command that starts it", err)
			}
		})
	}
}

func TestEndpointsThatDoNotParse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, EndpointsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadEndpoints(dir)
	if err == nil || errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), EndpointsFile) {
		t.Errorf("got %v, want an error that names the file and is not ErrNotRunning", err)
	}
}
