package app

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/foldstream/foldstream/internal/service"
)

// EndpointsFile is where a local stack says how to reach it, in its data folder.
const EndpointsFile = "endpoints.json"

const endpointsBytesMax = 1 << 20

// Endpoints is what programs that join a local stack need of that file.
type Endpoints struct {
	Brokers []string `json:"brokers"`
	DSN     string   `json:"dsn"`
}

// ReadEndpoints reads a local stack's addresses.
func ReadEndpoints(dataDir string) (Endpoints, error) {
	path := filepath.Join(dataDir, EndpointsFile)
	f, err := os.Open(path)
	if isMissing(err) {
		return Endpoints{}, service.Exitf(service.ExitNotFound, "no local stack in %s: start one by `foldstream dev --data-dir %s`", dataDir, dataDir)
	}
	if err != nil {
		return Endpoints{}, fmt.Errorf("read the local stack's addresses: %w", err)
	}
	defer f.Close()
	var e Endpoints
	if err := json.NewDecoder(io.LimitReader(f, endpointsBytesMax)).Decode(&e); err != nil {
		return Endpoints{}, fmt.Errorf("read the local stack's addresses in %s: %w", path, err)
	}
	if len(e.Brokers) == 0 {
		return Endpoints{}, fmt.Errorf("read the local stack's addresses in %s: it names no brokers; restart `foldstream dev`", path)
	}
	return e, nil
}

func (e Endpoints) configuration() map[string]any {
	values := map[string]any{"kafka.brokers": strings.Join(e.Brokers, ",")}
	if e.DSN != "" {
		values["postgres.dsn"] = e.DSN
	}
	return values
}
