package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Component is one part of a process that works until its context ends. Run must return soon
// after that; what it still does until then is its drain.
type Component struct {
	Name string
	Run  func(ctx context.Context) error
	// Background components stop after all others have: an HTTP server with the probes, a broker
	// that the others talk to.
	Background bool
}

// Group runs components together: when one ends, or the context does, all end. See the
// package's doc for the order.
type Group struct {
	Logger *slog.Logger
	// DrainTimeout bounds the drain. Default 25s.
	DrainTimeout time.Duration
	// Hurry, when it is closed, cuts the drain short: the second signal. nil means never.
	Hurry <-chan struct{}

	draining atomic.Bool
}

// ErrDraining is why a group that is stopping is not ready.
var ErrDraining = errors.New("draining")

const drainTimeoutDefault = 25 * time.Second

// Ready returns ErrDraining once the group is stopping. It is a readiness check.
func (g *Group) Ready() error {
	if g.draining.Load() {
		return ErrDraining
	}
	return nil
}

// Run starts the components and returns when all have returned, or the drain was cut off. It
// returns nil after an orderly end that the context asked for, else the joined errors. A
// component that returns while nobody asked it to is a failure, also when it returns nil.
func (g *Group) Run(ctx context.Context, components ...Component) error {
	var front, back []Component
	for _, c := range components {
		if c.Background {
			back = append(back, c)
		} else {
			front = append(front, c)
		}
	}
	backCtx, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	frontCtx, stopFront := context.WithCancel(ctx)
	defer stopFront()
	// A background component that fails ends the front ones, too.
	backTier := startTier(backCtx, back, stopFront)
	frontTier := startTier(frontCtx, front, stopFront)

	<-frontCtx.Done()
	g.draining.Store(true)
	deadline := g.deadline()
	defer deadline.stop()
	faults := []error{frontTier.wait(deadline)}
	stopBack()
	faults = append(faults, backTier.wait(deadline))
	return errors.Join(faults...)
}

func (g *Group) deadline() *deadline {
	timeout := g.DrainTimeout
	if timeout <= 0 {
		timeout = drainTimeoutDefault
	}
	d := &deadline{over: make(chan struct{}), done: make(chan struct{}), timeout: timeout}
	go d.watch(g.Hurry)
	return d
}

// deadline closes over when the time is up or somebody is in a hurry, and says why.
type deadline struct {
	timeout    time.Duration
	over, done chan struct{}
	reason     string
}

func (d *deadline) watch(hurry <-chan struct{}) {
	timer := time.NewTimer(d.timeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		d.reason = fmt.Sprintf("did not drain within %s", d.timeout)
	case <-hurry:
		d.reason = "drain cut short by a second signal"
	case <-d.done:
		return
	}
	close(d.over)
}

func (d *deadline) stop() { close(d.done) }

// tier is the components of one rank while they run.
type tier struct {
	ended chan struct{} // closed when all have returned

	mu      sync.Mutex
	running map[string]struct{}
	faults  []error
}

func startTier(ctx context.Context, components []Component, onEnd func()) *tier {
	t := &tier{ended: make(chan struct{}), running: map[string]struct{}{}}
	for _, c := range components {
		t.running[c.Name] = struct{}{}
	}
	var wg sync.WaitGroup
	for _, c := range components {
		wg.Go(func() {
			t.finished(ctx, c.Name, c.Run(ctx))
			onEnd()
		})
	}
	go func() { wg.Wait(); close(t.ended) }()
	return t
}

func (t *tier) finished(ctx context.Context, name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, name)
	asked := ctx.Err() != nil
	switch {
	case asked && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
	case err == nil:
		t.faults = append(t.faults, fmt.Errorf("%s ended, though nothing asked it to", name))
	default:
		t.faults = append(t.faults, fmt.Errorf("%s: %w", name, err))
	}
}

func (t *tier) wait(d *deadline) error {
	select {
	case <-t.ended:
	case <-d.over:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.running) > 0 {
		t.faults = append(t.faults, fmt.Errorf("%s: %s", strings.Join(sortedKeys(t.running), ", "), d.reason))
	}
	return errors.Join(t.faults...)
}

// Signals returns a context that ends at the first SIGINT or SIGTERM, and a channel that is
// closed at the second, for Group.Hurry. stop releases both.
func Signals(parent context.Context) (ctx context.Context, hurry <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM)
	second, released := make(chan struct{}), make(chan struct{})
	go func() {
		if !awaitSignal(caught, released) {
			return
		}
		cancel(ErrInterrupted)
		if awaitSignal(caught, released) {
			close(second)
		}
	}()
	var once sync.Once
	return ctx, second, func() {
		once.Do(func() { signal.Stop(caught); close(released); cancel(nil) })
	}
}

func awaitSignal(caught <-chan os.Signal, released <-chan struct{}) bool {
	select {
	case <-caught:
		return true
	case <-released:
		return false
	}
}
