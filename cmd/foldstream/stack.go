package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/service"
)

// localStack is servers, and the environment of a program on them.
type localStack struct {
	*devstack.Stack
	env *app.Environment
}

// startStack starts the servers and makes them ready for the program: topics, schemas, tables.
func startStack(ctx context.Context, env *app.Environment, cfg devstack.StackConfig) (*localStack, error) {
	cfg.Logger = quiet(env.Logger)
	servers, err := devstack.StartStack(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &localStack{Stack: servers, env: env}
	env.Config.Kafka.Brokers = servers.Brokers
	env.Config.Postgres.DSN = service.Secret(servers.DSN)
	if cfg.Kafka == devstack.KindEmbedded || cfg.Kafka == devstack.KindJVM {
		// One broker: what the project says for a cluster cannot be had here.
		env.Project.ReplicationFactor, env.Project.MinInsyncReplicas = 1, 1
	}
	if err := env.Prepare(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("prepare the stack: %w", err)
	}
	return s, nil
}

// stop stops the servers and says what went wrong, which changes nothing any more.
func (s *localStack) stop() {
	if err := s.Stop(); err != nil {
		s.env.Logger.Warn("the stack did not stop cleanly", "err", err)
	}
}

// watch is a component that fails when a server ends by itself.
func (s *localStack) watch() service.Component {
	return service.Component{Name: "stack", Run: func(ctx context.Context) error {
		select {
		case err := <-s.Failed():
			return err
		case <-ctx.Done():
			return nil
		}
	}}
}

// endpoints tells other programs how to reach the stack and its services.
func (s *localStack) endpoints(services *app.Services) devstack.Endpoints {
	e := devstack.Endpoints{
		Brokers: s.Brokers, DSN: s.DSN, HTTP: map[string]string{}, Namespace: s.env.Project.Namespace,
		PID: os.Getpid(), StartedAt: time.Now().UTC(),
	}
	if services == nil {
		return e
	}
	for _, name := range services.Names() {
		e.HTTP[name] = services.URL()
	}
	return e
}

// runServices runs the program's services, or nothing but the watch over the servers, until ctx
// ends.
func (s *localStack) run(ctx context.Context, services *app.Services, hurry <-chan struct{}) error {
	if services != nil {
		return services.Run(ctx, hurry, s.watch())
	}
	g := &service.Group{Logger: s.env.Logger, DrainTimeout: s.env.Config.ShutdownTimeout, Hurry: hurry}
	return g.Run(ctx, s.watch())
}

// quiet lowers what servers tell of themselves: a developer asked for a stack, not for its log.
func quiet(logger *slog.Logger) *slog.Logger { return slog.New(raised{logger.Handler()}) }

// raised lets warnings and errors through, and the rest only where debug is on.
type raised struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h raised) Enabled(ctx context.Context, level slog.Level) bool {
	if level >= slog.LevelWarn {
		return h.Handler.Enabled(ctx, level)
	}
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

// WithAttrs implements slog.Handler.
func (h raised) WithAttrs(attrs []slog.Attr) slog.Handler { return raised{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h raised) WithGroup(name string) slog.Handler { return raised{h.Handler.WithGroup(name)} }

func joinBrokers(brokers []string) string { return strings.Join(brokers, ",") }
