package web

import (
	"fmt"
	"runtime"
	"strings"
)

// IsClean says whether net/http's mux takes an escaped path as it is, instead of redirecting to
// another.
func IsClean(path string) bool {
	return !strings.Contains(path, "//") && !strings.Contains(path, "/./") && !strings.Contains(path, "/../") &&
		!strings.HasSuffix(path, "/.") && !strings.HasSuffix(path, "/..")
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
