package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// serveCommand makes this program an instance of the writer: the engine alone, with the benches'
// decider and without HTTP. It says on stdout which partitions it serves, a JSON line at each
// change, and ends at SIGTERM, or when its stdin does, so that no child outlives the bench.
const serveCommand = "serve"

const childPoll = 5 * time.Millisecond

// childStatus is a line of a child.
type childStatus struct {
	Owned []int32 `json:"owned"`
}

func serve(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet(serveCommand, flag.ContinueOnError)
	seeds := flags.String("seeds", "", "brokers, separated by commas")
	ns := flags.String("namespace", benchNamespace, "namespace")
	heartbeat := flags.Duration("heartbeat", 0, "heartbeat interval of the group; 0 is the engine's default")
	profiles := flags.String("profiles", "", "write cpu.pprof and heap.pprof of the time until all partitions serve into this folder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	stopProfile, err := profile(childProfile(*profiles, "cpu.pprof"))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := newEngine(ctx, *ns, []kgo.Opt{kgo.SeedBrokers(strings.Split(*seeds, ",")...)}, registry, log, engineSetup{heartbeat: *heartbeat})
	if err != nil {
		return err
	}
	go func() { _ = service.TuneCollector(ctx) }() // as the services do
	told := make(chan error, 1)
	go func() {
		told <- tellOwned(ctx, stdout, func() []int32 { return e.Owned()[benchCategory] }, func() {
			stopProfile()
			if err := heapProfile(childProfile(*profiles, "heap.pprof")); err != nil {
				log.Error("heap profile", "cause", err)
			}
		})
	}()
	err = e.Run(ctx)
	cancel()
	return errors.Join(err, <-told)
}

// tellOwned writes a line at each change, and calls all once, when all partitions are served.
func tellOwned(ctx context.Context, out io.Writer, owned func() []int32, all func()) error {
	lines := json.NewEncoder(out)
	var told []int32
	var once sync.Once
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for {
		now := owned()
		slices.Sort(now)
		if !slices.Equal(now, told) {
			if err := lines.Encode(childStatus{Owned: now}); err != nil {
				return err
			}
			told = now
			if len(now) == benchPartitions {
				once.Do(all)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func childProfile(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

func heapProfile(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// child is a running instance, as the bench sees it.
type child struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer
	started time.Time
	ended   chan struct{}
	err     error // after ended

	mu    sync.Mutex
	owned []int32
}

func (b *bench) startChild(name, ns string, more ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{serveCommand, "-seeds", strings.Join(b.seeds, ","), "-namespace", ns, "-heartbeat", b.options.heartbeat.String()}, more...)
	c := &child{name: name, cmd: exec.Command(self, args...), ended: make(chan struct{})}
	c.cmd.Stderr = b.progress
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.started = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(stdout)
	return c, nil
}

func (c *child) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var status childStatus
		if json.Unmarshal(lines.Bytes(), &status) == nil {
			c.mu.Lock()
			c.owned = status.Owned
			c.mu.Unlock()
		}
	}
	c.err = c.cmd.Wait()
	close(c.ended)
}

// serves lists the partitions that the child said last.
func (c *child) serves() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.owned)
}

// kill ends the child without a chance to clean up, and waits for its end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

const childStopMax = 20 * time.Second

// stop asks the child to end and waits.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.ended:
		if c.err != nil {
			return fmt.Errorf("instance %s: %w", c.name, c.err)
		}
		return nil
	case <-time.After(childStopMax):
		c.kill()
		return fmt.Errorf("instance %s did not end within %s of SIGTERM", c.name, childStopMax)
	}
}

// awaitServing waits until the children serve all partitions between them, each some.
func (b *bench) awaitServing(limit time.Duration, children ...*child) error {
	deadline := time.Now().Add(limit)
	for {
		sum, least := 0, benchPartitions
		for _, c := range children {
			n := len(c.serves())
			sum += n
			least = min(least, n)
			select {
			case <-c.ended:
				return fmt.Errorf("instance %s ended: %w", c.name, c.err)
			default:
			}
		}
		if sum == benchPartitions && least > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d partitions are served after %s", sum, benchPartitions, limit)
		}
		if err := b.pause(childPoll); err != nil {
			return err
		}
	}
}

// pause waits unless the bench is interrupted.
func (b *bench) pause(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// memoryMB reads the most and the present resident memory of the child, in MB of 10^6 bytes.
func (c *child) memoryMB() (most, now float64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, 0, fmt.Errorf("the memory of a process is read from /proc: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 || (name != "VmHWM" && name != "VmRSS") {
			continue
		}
		kib, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", name, err)
		}
		if name == "VmHWM" {
			most = kib * 1024 / 1e6
		} else {
			now = kib * 1024 / 1e6
		}
	}
	return most, now, nil
}
