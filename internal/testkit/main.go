package testkit

import (
	"fmt"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests, stops the shared servers and names those that were
// missing. It returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	return finish(code, os.Stderr)
}

// MainNoLeaks is Main that also fails when a goroutine is left after all tests
// and after the shared servers are gone.
func MainNoLeaks(m *testing.M, options ...goleak.Option) int {
	code := finish(m.Run(), os.Stderr)
	if code != 0 {
		return code
	}
	if err := goleak.Find(options...); err != nil {
		fmt.Fprintf(os.Stderr, "goroutines are left after the tests: %v\n", err)
		return 1
	}
	return 0
}

func finish(code int, out io.Writer) int {
	if err := shared.stop(); err != nil {
		fmt.Fprintf(out, "stop the shared servers: %v\n", err)
		code = max(code, 1)
	}
	for _, line := range shared.absentLines() {
		fmt.Fprintln(out, line)
	}
	return code
}
