package devstack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

const (
	logTailBytesMax = 4 << 10
	killWait        = 5 * time.Second
)

// Process is one child process. Its output goes to a file, straight from the
// child, so that nothing here has to be alive for it to write.
type Process struct {
	cmd     *exec.Cmd
	logPath string
	done    chan struct{} // closed once the child has been waited for
	err     error         // what Wait said; read after done
}

// StartProcess starts cmd with its output in logPath (truncated first).
// deathSignal goes to the child when this process dies, where the system can.
func StartProcess(cmd *exec.Cmd, logPath string, deathSignal os.Signal) (*Process, error) {
	out, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	setChildAttributes(cmd, deathSignal)

	p := &Process{cmd: cmd, logPath: logPath, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// run keeps its thread for the life of the child: the request for a signal at
// the parent's death ends with the thread that made it, and the Go runtime
// ends idle threads' goroutines elsewhere as it likes.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	p.err = p.cmd.Wait()
	close(p.done)
}

// PID is the process id of the child.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended, as [exec.Cmd.Wait] does. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Output is the end of what the child wrote, 4 KiB at most.
func (p *Process) Output() string { return tailOf(p.logPath) }

// Pause stops the child from running (SIGSTOP) without ending it.
func (p *Process) Pause() error { return p.Signal(sigPause) }

// Resume lets a paused child run on (SIGCONT).
func (p *Process) Resume() error { return p.Signal(sigCont) }

// Terminate asks the child to end (SIGTERM) and waits; see Stop.
func (p *Process) Terminate(grace time.Duration) error { return p.Stop(sigTerm, grace) }

// Ended says whether the child has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Signal is harmless once the child has ended.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to process %d: %w", sig, p.PID(), err)
	}
	return nil
}

// Stop sends sig and waits; a child that is still there after grace is killed
// and named in the error.
func (p *Process) Stop(sig os.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	err := fmt.Errorf("process %d did not end within %s of %s and was killed", p.PID(), grace, sig)
	return errors.Join(err, p.Kill())
}

// Kill ends the child without a chance to clean up, and waits for its end.
func (p *Process) Kill() error {
	if err := p.Signal(os.Kill); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killWait):
		return fmt.Errorf("process %d is still there %s after a kill", p.PID(), killWait)
	}
}

// failure describes an early end with the last lines that the child wrote.
func (p *Process) failure() error {
	tail := tailOf(p.logPath)
	if tail == "" {
		tail = "it wrote nothing"
	}
	return fmt.Errorf("process ended early (%w); the last lines of %s:\n%s", p.err, p.logPath, tail)
}

func tailOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-logTailBytesMax), io.SeekStart)
	}
	text, err := io.ReadAll(io.LimitReader(f, logTailBytesMax))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(bytes.ToValidUTF8(text, []byte("?"))))
}
