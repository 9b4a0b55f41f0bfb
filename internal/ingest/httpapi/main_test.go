package httpapi

import (
	"os"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }
