package service

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func untilDone(ctx context.Context) error { <-ctx.Done(); return nil }

func TestGroupStopsTheBackgroundLast(t *testing.T) {
	t.Parallel()
	g := &Group{Logger: silent()}
	ctx, cancel := context.WithCancel(t.Context())
	draining, release := make(chan struct{}), make(chan struct{})
	var frontEnded bool
	done := make(chan error, 1)
	go func() {
		done <- g.Run(ctx,
			Component{Name: "worker", Run: func(ctx context.Context) error {
				<-ctx.Done()
				close(draining)
				<-release
				frontEnded = true
				return nil
			}},
			Component{Name: "http", Background: true, Run: func(ctx context.Context) error {
				<-ctx.Done()
				if !frontEnded {
					return errors.New("stopped before the worker was done")
				}
				return nil
			}})
	}()
	if err := g.Ready(); err != nil {
		t.Errorf("Ready while running: got %v, want nil", err)
	}
	cancel()
	<-draining
	for !errors.Is(g.Ready(), ErrDraining) { // set by the group right after the context ends
		runtime.Gosched()
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
}

func TestGroupEndsAllWhenOneFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, background := range []bool{false, true} {
		err := (&Group{Logger: silent()}).Run(t.Context(),
			Component{Name: "good", Run: untilDone},
			Component{Name: "bad", Background: background, Run: func(context.Context) error { return broken }})
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "bad: ") {
			t.Errorf("background %v: got %v, want the failure with its component's name", background, err)
		}
	}
}

func TestGroupTakesAnUnaskedEndAsAFailure(t *testing.T) {
	t.Parallel()
	err := (&Group{Logger: silent()}).Run(t.Context(),
		Component{Name: "quitter", Run: func(context.Context) error { return nil }},
		Component{Name: "good", Run: untilDone})
	if err == nil || !strings.Contains(err.Error(), "quitter ended, though nothing asked it to") {
		t.Errorf("got %v", err)
	}
}

func TestGroupForgivesTheContextsOwnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrInterrupted)
	err := (&Group{Logger: silent()}).Run(ctx,
		Component{Name: "a", Run: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }},
		Component{Name: "b", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	if err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestGroupCutsTheDrainOff(t *testing.T) {
	t.Parallel()
	hurried := make(chan struct{})
	close(hurried)
	for _, c := range []struct {
		name string
		g    *Group
		want string
	}{
		{"at the deadline", &Group{Logger: silent(), DrainTimeout: time.Millisecond}, "stuck: did not drain within 1ms"},
		{"at the second signal", &Group{Logger: silent(), Hurry: hurried}, "stuck: drain cut short by a second signal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			release, gone := make(chan struct{}), make(chan struct{})
			err := c.g.Run(ctx, Component{Name: "stuck", Run: func(context.Context) error { defer close(gone); <-release; return nil }})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			close(release)
			<-gone
		})
	}
}

func TestSignalsFirstDrainsSecondHurries(t *testing.T) {
	ctx, hurry, stop := Signals(t.Context())
	defer stop()
	kill := func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	<-ctx.Done()
	if got := context.Cause(ctx); !errors.Is(got, ErrInterrupted) {
		t.Errorf("cause: got %v, want ErrInterrupted", got)
	}
	select {
	case <-hurry:
		t.Error("hurried after one signal")
	default:
	}
	kill()
	<-hurry
	stop()
	stop()
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {Exitf(ExitUsage, "x"), 2}, {ErrInterrupted, 130}, {context.Canceled, 130},
		{errors.Join(errors.New("a"), Exitf(ExitPartial, "b")), 6}, {context.DeadlineExceeded, 1},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("ExitCode(%v): got %d, want %d", c.err, got, c.want)
		}
	}
}
