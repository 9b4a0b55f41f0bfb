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

// process is one child. Its output goes to a file, straight from the child, so
// that nothing here has to be alive for it to write.
type process struct {
	cmd     *exec.Cmd
	logPath string
	done    chan struct{} // closed once the child has been waited for
	err     error         // what Wait said; read after done
}

// startProcess starts cmd with its output in logPath (truncated first).
// deathSignal goes to the child when this process dies, where the system can.
func startProcess(cmd *exec.Cmd, logPath string, deathSignal os.Signal) (*process, error) {
	out, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", cmd.Path, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	setChildAttributes(cmd, deathSignal)

	p := &process{cmd: cmd, logPath: logPath, done: make(chan struct{})}
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
func (p *process) run(started chan<- error) {
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

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal is harmless once the child has ended.
func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to process %d: %w", sig, p.pid(), err)
	}
	return nil
}

// stop sends sig and waits; a child that is still there after grace is killed
// and named in the error.
func (p *process) stop(sig os.Signal, grace time.Duration) error {
	if err := p.signal(sig); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	err := fmt.Errorf("process %d did not end within %s of %s and was killed", p.pid(), grace, sig)
	return errors.Join(err, p.kill())
}

// kill ends the child without a chance to clean up, and waits for its end.
func (p *process) kill() error {
	if err := p.signal(os.Kill); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killWait):
		return fmt.Errorf("process %d is still there %s after a kill", p.pid(), killWait)
	}
}

// failure describes an early end with the last lines that the child wrote.
func (p *process) failure() error {
	tail := tailOf(p.logPath)
	if tail == "" {
		tail = "it wrote nothing"
	}
	return fmt.Errorf("process ended early (%v); the last lines of %s:\n%s", p.err, p.logPath, tail)
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
