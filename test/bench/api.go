package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/pkg/decider"
)

// apiCommand makes this program a Foldstream of the benches' project, with the services and tools
// as its subcommands: what a team would build and run. It ends when its stdin does, so that no child
// outlives the bench.
const apiCommand = "api"

//go:embed project
var projectFiles embed.FS

const (
	entryCategory = "entry" // in append mode
	entryType     = "entry.Recorded"
)

// api runs one subcommand and returns its exit code.
func api(args []string, stdout, stderr io.Writer) int {
	project, err := fs.Sub(projectFiles, "project")
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	root, _ := app.NewCommand(app.Program{Name: "bench api", Project: project, Deciders: []decider.Any{counterDecider}})
	return app.ExecuteContext(ctx, nil, root, args, stdout, stderr)
}

// instance is a running service with its API.
type instance struct {
	address string // host:port
	cmd     *exec.Cmd
	stdin   io.Closer
	ended   chan struct{}
	err     error // after ended
}

const (
	instanceServesMax = 60 * time.Second
	instanceStopMax   = 20 * time.Second
)

// startAPI makes topics and schemas of a namespace and starts a service (ingest, or all with a
// projector) that serves when it returns. dsn is of a Postgres, "" for none.
func (b *bench) startAPI(which, ns, dsn string) (*instance, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	flags := []string{"--brokers", strings.Join(b.seeds, ","), "--namespace", ns, "--log-level", "warn"}
	if dsn != "" {
		flags = append(flags, "--dsn", dsn)
	}
	for _, tool := range [][]string{{"topics", "apply"}, {"schema", "register"}} {
		cmd := exec.CommandContext(b.ctx, self, append(append([]string{apiCommand}, tool...), flags...)...)
		stdin, err := cmd.StdinPipe() // held open: its end would end the tool
		if err != nil {
			return nil, err
		}
		said, err := cmd.CombinedOutput()
		_ = stdin.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(tool, " "), err, said)
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	i := &instance{address: address, ended: make(chan struct{})}
	i.cmd = exec.Command(self, append([]string{apiCommand, which, "--http-addr", address}, flags...)...)
	i.cmd.Stderr = b.progress
	if i.stdin, err = i.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { i.err = i.cmd.Wait(); close(i.ended) }()
	if err := b.awaitReady(i); err != nil {
		return nil, errors.Join(err, i.stop())
	}
	return i, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (b *bench) awaitReady(i *instance) error {
	deadline := time.Now().Add(instanceServesMax)
	for {
		resp, err := http.Get("http://" + i.address + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("readyz: %s", resp.Status)
		}
		select {
		case <-i.ended:
			return fmt.Errorf("the service ended: %w", i.err)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the service does not serve after %s: %w", instanceServesMax, err)
		}
		if err := b.pause(20 * time.Millisecond); err != nil {
			return err
		}
	}
}

// stop asks the service to end and waits.
func (i *instance) stop() error {
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-i.ended:
		return i.err
	case <-time.After(instanceStopMax):
		_ = i.cmd.Process.Kill()
		<-i.ended
		return fmt.Errorf("the service did not end within %s of SIGTERM", instanceStopMax)
	}
}
