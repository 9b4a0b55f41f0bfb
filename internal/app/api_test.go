package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/registry"
)

// brokenRegistry panics whatever it is asked.
type brokenRegistry struct{ registry.Registry }

func TestAPanicOfTheRegistryIsAnsweredAndItsPlaceLogged(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	s := (&Environment{Project: &project.Project{}, Logger: slog.New(slog.NewTextHandler(&logs, nil))}).newServices()
	if err := s.openRegistry(brokenRegistry{}, nil); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.handlers[registryPath+"/"].ServeHTTP(w, httptest.NewRequest(http.MethodGet, registryPath+"/subjects", http.NoBody))
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), `"error_code":500`) {
		t.Errorf("got %d %s, want a 500 in the registry's form", w.Code, w.Body)
	}
	if text := logs.String(); !strings.Contains(text, "route=registry") || !strings.Contains(text, "registry/rest.") {
		t.Errorf("log: got %s, want the place", text)
	}
}
