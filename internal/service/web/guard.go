package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// IsClean says whether net/http's mux takes an escaped path as it is, instead of redirecting to
// another.
func IsClean(path string) bool {
	return !strings.Contains(path, "//") && !strings.Contains(path, "/./") && !strings.Contains(path, "/../") &&
		!strings.HasSuffix(path, "/.") && !strings.HasSuffix(path, "/..")
}

// Net is under handlers: a panic is a 500 and a line in the log that says where it was, without its
// value, which may be payload. The default of net/http would print the value.
type Net struct {
	Logger *slog.Logger
	Panics prometheus.Counter          // nil: they are not counted
	Answer func(w http.ResponseWriter) // the 500; nil: a problem document with CodeBug
}

// Guard puts the net under a handler; route names it in the log.
func (n *Net) Guard(route string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := Record(w)
		defer rec.Release()
		defer n.Catch(rec, route)
		next.ServeHTTP(rec, r)
	})
}

// Catch is deferred around a handler. Once an answer has begun, all that is left is to end its
// connection, by a panic with http.ErrAbortHandler.
func (n *Net) Catch(w *Recorder, route string) {
	value := recover()
	if value == nil {
		return
	}
	frames := ""
	if elsewhere, is := value.(*Panicked); is {
		value, frames = elsewhere.Value, elsewhere.Frames
	}
	if err, is := value.(error); is && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	if frames == "" {
		frames = PanicFrames(1)
	}
	if n.Panics != nil {
		n.Panics.Inc()
	}
	n.Logger.Error("a handler panicked: this is a bug, please report it", "route", route, "kind", fmt.Sprintf("%T", value), "stack", frames)
	if w.Status != 0 {
		panic(http.ErrAbortHandler)
	}
	n.answer(w)
}

// CodeBug is the code of a panic's problem document.
const CodeBug = "bug"

func (n *Net) answer(w http.ResponseWriter) {
	if n.Answer != nil {
		n.Answer(w)
		return
	}
	p := NewProblem(http.StatusInternalServerError, CodeBug, "a bug in this server; its log has the place")
	p.Write(w, &p)
}

// Panicked is a panic of another goroutine that is raised again in a handler's own, for the Net
// under it.
type Panicked struct {
	Value  any
	Frames string // of the goroutine that panicked first: PanicFrames(1) in the deferred function
}

// PanicFrames names the functions and lines on the stack of a panic that is being recovered from,
// without arguments: these may be payload. skip is how many frames of the recovering lie on top.
func PanicFrames(skip int) string {
	const most = 32
	var pcs [most]uintptr
	n := runtime.Callers(skip+2, pcs[:])
	all := runtime.CallersFrames(pcs[:n])
	var b strings.Builder
	for more := n > 0; more; {
		var f runtime.Frame
		f, more = all.Next()
		fmt.Fprintf(&b, "%s:%d; ", f.Function, f.Line)
	}
	return b.String()
}
