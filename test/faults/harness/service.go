package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
)

// service is one child process, which may be ended and started again.
type service struct {
	name string
	args []string
	st   *stack
	env  []string // more than the stack's

	mu      sync.Mutex
	runs    int
	proc    *devstack.Process
	down    bool   // ended on purpose: it is not to be started again
	log     string // file of the current run
	listens string // where the current run does, once that is known
}

// restartPause is how long the supervisor waits before it starts a service that ended by itself.
const restartPause = 300 * time.Millisecond

// start runs the service, and as a supervisor would, runs it again when it ends by itself: one that
// is started while the broker is away gives up. The kernel ends it with this process, whatever
// ends that.
func (s *service) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
	return s.run()
}

// run starts a process; the caller holds the lock.
func (s *service) run() error {
	s.runs++
	s.log = filepath.Join(s.st.dir, fmt.Sprintf("%s-%d.log", s.name, s.runs))
	cmd := exec.Command(s.st.binary, s.args...)
	cmd.Env, cmd.Dir = append(append(s.st.environment(), "FOLDSTREAM_KAFKA_CLIENT_ID="+s.name), s.env...), s.st.dir
	proc, err := devstack.StartProcess(cmd, s.log, os.Kill)
	if err != nil {
		return err
	}
	s.proc, s.listens = proc, ""
	go s.supervise(proc)
	return nil
}

func (s *service) supervise(proc *devstack.Process) {
	<-proc.Done()
	time.Sleep(restartPause)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == proc && !s.down {
		_ = s.run() // what cannot be started does not serve, which the run finds out
	}
}

// takeDown returns the process, which is going to be ended on purpose.
func (s *service) takeDown() *devstack.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	return s.proc
}

func (s *service) process() (*devstack.Process, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc, s.log
}

func (s *service) pid() int {
	if p, _ := s.process(); p != nil {
		return p.PID()
	}
	return 0
}

func (s *service) alive() bool {
	p, _ := s.process()
	return p != nil && !p.Ended()
}

func (s *service) kill() error {
	if p := s.takeDown(); p != nil {
		return p.Kill()
	}
	return nil
}

func (s *service) pause() error {
	p, _ := s.process()
	return p.Pause()
}

func (s *service) resume() error {
	p, _ := s.process()
	return p.Resume()
}

// stop asks the service to end, and tells when it does not end well.
func (s *service) stop() error {
	p := s.takeDown()
	if p == nil || p.Ended() {
		return nil
	}
	if err := errors.Join(p.Resume(), p.Terminate(30*time.Second)); err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	return nil
}

// get asks the service's own HTTP server.
func (s *service) get(ctx context.Context, path string) (int, string, error) {
	addr, err := s.addr()
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return resp.StatusCode, string(body), err
}

// metric sums the series of one metric; 0 for a service that does not answer.
func (s *service) metric(ctx context.Context, name string) float64 {
	_, body, err := s.get(ctx, "/metrics")
	if err != nil {
		return 0
	}
	return sumOf(body, name)
}

// sumOf sums the series of one metric, or takes the one whose labels the name has.
func sumOf(metrics, name string) float64 {
	var sum float64
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			fields := strings.Fields(line)
			value, _ := strconv.ParseFloat(fields[len(fields)-1], 64)
			sum += value
		}
	}
	return sum
}

// serving says how many partitions an ingest serves.
func (s *service) serving(ctx context.Context) int {
	if !s.alive() {
		return 0
	}
	return int(s.metric(ctx, "foldstream_ingest_partitions_owned"))
}

// logged counts the lines of all runs that hold a text.
func (s *service) logged(text string) int {
	s.mu.Lock()
	runs := s.runs
	s.mu.Unlock()
	n := 0
	for i := 1; i <= runs; i++ {
		f, err := os.Open(filepath.Join(s.st.dir, fmt.Sprintf("%s-%d.log", s.name, i)))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				n++
			}
		}
		f.Close()
	}
	return n
}
