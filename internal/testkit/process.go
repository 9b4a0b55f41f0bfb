package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
)

const (
	processStopGrace = 30 * time.Second
	awaitPoll        = 5 * time.Millisecond
)

// Build compiles a command of this module once per test process and returns
// the path of the binary. pkg is an import path, such as
// github.com/foldstream/foldstream/cmd/ingest.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	path, err := shared.build(t, pkg)
	if err != nil {
		t.Fatalf("build %s: %v", pkg, err)
	}
	return path
}

func (s *servers) build(t testing.TB, pkg string) (string, error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.folder(t, filepath.Join("bin", strings.ReplaceAll(pkg, "/", "_")))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	ctx, cancel := startContext()
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
}

// Process is a program under test that runs as a process of its own, so that
// it can be killed and paused as nothing inside this process can. Its methods
// report faults by t.Errorf, so that any goroutine may call them.
type Process struct {
	t       testing.TB
	command func() *exec.Cmd
	logDir  string

	mu   sync.Mutex // guards what follows
	runs int
	proc *devstack.Process
}

// StartProcess runs a command, which command makes anew for each run. The
// process ends with the test, and also when this process is killed. What it
// wrote is logged when the test failed.
func StartProcess(t testing.TB, command func() *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, command: command, logDir: t.TempDir()}
	p.Start()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("process %d wrote at last:\n%s", p.PID(), p.Output())
		}
	})
	return p
}

// Start runs the command again after the process ended.
func (p *Process) Start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc != nil && !p.proc.Ended() {
		p.t.Errorf("start a process: process %d still runs", p.proc.PID())
		return
	}
	p.runs++
	log := filepath.Join(p.logDir, fmt.Sprintf("run-%d.log", p.runs))
	proc, err := devstack.StartProcess(p.command(), log, os.Kill)
	if err != nil {
		p.t.Errorf("start a process: %v", err)
		return
	}
	p.proc = proc
}

func (p *Process) current() *devstack.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc
}

// do applies f to the current run; a failed Start has none and was reported.
func (p *Process) do(what string, f func(*devstack.Process) error) {
	p.t.Helper()
	if proc := p.current(); proc != nil {
		if err := f(proc); err != nil {
			p.t.Errorf("%s a process: %v", what, err)
		}
	}
}

// Kill ends the process by SIGKILL and waits for its end.
func (p *Process) Kill() { p.do("kill", (*devstack.Process).Kill) }

// Pause stops the process from running (SIGSTOP); its connections stay open.
func (p *Process) Pause() { p.do("pause", (*devstack.Process).Pause) }

// Resume lets a paused process run on (SIGCONT).
func (p *Process) Resume() { p.do("resume", (*devstack.Process).Resume) }

// Stop asks the process to end (SIGTERM), which it must within 30 s. Stopping
// an ended process is harmless.
func (p *Process) Stop() {
	p.do("stop", func(proc *devstack.Process) error {
		if proc.Ended() {
			return nil
		}
		if err := proc.Resume(); err != nil { // a paused one would sleep through it
			return err
		}
		return proc.Terminate(processStopGrace)
	})
}

// PID is the process id of the current or last run, 0 before any.
func (p *Process) PID() int {
	if proc := p.current(); proc != nil {
		return proc.PID()
	}
	return 0
}

// Done is closed when the current run ends. Without a run it is closed.
func (p *Process) Done() <-chan struct{} {
	if proc := p.current(); proc != nil {
		return proc.Done()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// Output is the end of what the current run wrote, 4 KiB at most.
func (p *Process) Output() string {
	if proc := p.current(); proc != nil {
		return proc.Output()
	}
	return ""
}

// Await polls a condition of another process, which can send no signal to this
// one, until it holds. what names the condition in the failure.
func Await(t testing.TB, what string, timeout time.Duration, holds func(ctx context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(awaitPoll)
	defer tick.Stop()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s in vain: %s", timeout, what)
		case <-tick.C:
		}
	}
}
