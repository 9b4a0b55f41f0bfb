//go:build unix

package real

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// child is one run of the binary. Its methods may be called from any goroutine.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdout string // file
	stderr string // file
	done   chan struct{}
	err    error // what Wait said; read after done
}

// childNumber keeps the children's files apart.
var childNumber atomic.Int64

// start starts the binary. Whatever becomes of the test, the child ends with it.
func (w *world) start(args ...string) (*child, error) {
	name := fmt.Sprintf("%s-%d", strings.Join(args[:min(2, len(args))], "-"), childNumber.Add(1))
	c := &child{
		name: name, cmd: exec.Command(w.binary, args...), done: make(chan struct{}),
		stdout: filepath.Join(w.dir, name+".out"), stderr: filepath.Join(w.dir, name+".log"),
	}
	stdout, err := os.Create(c.stdout)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := os.Create(c.stderr)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Env, c.cmd.Dir = stdout, stderr, w.environment(), w.dir
	c.cmd.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	w.t.Cleanup(func() {
		running := !c.ended()
		c.kill()
		if running && w.t.Failed() {
			w.t.Logf("%s wrote at last:\n%s", c.name, c.tail())
		}
	})
	return c, nil
}

// run keeps its thread for the life of the child, since the kernel takes the end of the thread
// that started the child for the end of the parent.
func (c *child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err == nil {
		c.err = c.cmd.Wait()
	}
	close(c.done)
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// signal is harmless once the child has ended.
func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// kill ends the child by SIGKILL and waits for its end.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// terminate asks the child to stop and returns its exit code.
func (c *child) terminate(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	c.signal(syscall.SIGTERM)
	return c.exit(ctx)
}

// exit waits for the child's end by itself and returns its exit code.
func (c *child) exit(ctx context.Context) (int, error) {
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("%s is still running: %w", c.name, context.Cause(ctx))
	}
}

// succeed waits for the child's end, which must be a good one.
func (c *child) succeed(ctx context.Context) error {
	code, err := c.exit(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with %d, want 0\n%s", c.name, code, c.tail())
	}
	return err
}

// early is the error of a service that ended though nobody asked it to.
func (c *child) early() error {
	return fmt.Errorf("%s ended by itself (%w)\n%s", c.name, c.err, c.tail())
}

// output is what the child wrote for programs.
func (c *child) output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.stdout)
	if err != nil {
		t.Fatalf("read the output of %s: %v", c.name, err)
	}
	return string(text)
}

// tail is the end of what the child wrote for people.
func (c *child) tail() string {
	const tailBytesMax = 4 << 10
	text, err := os.ReadFile(c.stderr)
	if err != nil {
		return err.Error()
	}
	return string(bytes.ToValidUTF8(text[max(0, len(text)-tailBytesMax):], []byte("?")))
}

var tookOver = regexp.MustCompile(`"partition taken over".*"took":(\d+)`)

// takeOvers reads from an ingest's log how long each of its take-overs took, from assignment to
// the first decision, in order.
func (c *child) takeOvers() []time.Duration {
	log, err := os.ReadFile(c.stderr)
	if err != nil {
		return nil
	}
	var all []time.Duration
	for _, match := range tookOver.FindAllSubmatch(log, -1) {
		if n, err := strconv.ParseInt(string(match[1]), 10, 64); err == nil {
			all = append(all, time.Duration(n))
		}
	}
	return all
}

// metric scrapes the child and sums the series of one metric.
func (c *child) metric(t *testing.T, name string) float64 {
	t.Helper()
	body, err := c.scrape(t.Context())
	if err != nil {
		t.Fatalf("scrape %s: %v", c.name, err)
	}
	var sum float64
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("%s has a metric without a value: %q", c.name, line)
		}
		sum += value
	}
	return sum
}

var servedAt = regexp.MustCompile(`"HTTP is served".*"addr":"([^"]+)"`)

func (c *child) scrape(ctx context.Context) (string, error) {
	log, err := os.ReadFile(c.stderr)
	if err != nil {
		return "", err
	}
	match := servedAt.FindSubmatch(log)
	if match == nil {
		return "", errors.New("its log does not say where metrics are served")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(match[1])+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
