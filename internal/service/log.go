package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"
)

const (
	logFormatAuto = "auto"
	logFormatText = "text"
	logFormatJSON = "json"
)

var logFormats = []string{logFormatAuto, logFormatText, logFormatJSON}

// NewLogger writes to w, stderr as a rule, as text where w is a terminal and as JSON elsewhere,
// unless the configuration says otherwise. A record logged with a context that holds a W3C trace
// has its trace_id and span_id.
func NewLogger(cfg LogConfig, w io.Writer) (*slog.Logger, error) {
	level, err := parseLevel(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("configuration log.level: %w", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == logFormatText || (cfg.Format == logFormatAuto && isTerminal(w)) {
		return slog.New(traceHandler{slog.NewTextHandler(w, opts)}), nil
	}
	return slog.New(traceHandler{slog.NewJSONHandler(w, opts)}), nil
}

func parseLevel(text string) (slog.Level, error) {
	var level slog.Level
	switch text {
	case "debug", "info", "warn", "error":
		err := level.UnmarshalText([]byte(text))
		return level, err
	}
	return 0, fmt.Errorf("%q is no log level", text)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// traceHandler adds the ids of the context's trace.
type traceHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
