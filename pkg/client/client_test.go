package client

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println("goroutines are left after the tests:", err.Error())
			code = 1
		}
	}
	os.Exit(code)
}
