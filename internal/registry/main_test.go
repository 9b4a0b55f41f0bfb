package registry_test

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/registry/rest"
	"github.com/foldstream/foldstream/internal/testkit"
)

func TestMain(m *testing.M) {
	registry.OverHTTP = overHTTP
	os.Exit(testkit.MainNoLeaks(m))
}

func overHTTP(t *testing.T, r registry.Registry) string {
	t.Helper()
	handler, err := rest.New(rest.Config{Registry: r, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
