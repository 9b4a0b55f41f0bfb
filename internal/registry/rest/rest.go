package rest

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/foldstream/foldstream/internal/registry"
)

// Config configures the handler. The zero value of a field means its default.
type Config struct {
	// Registry that is served. Required. The handler does not close it.
	Registry registry.Registry
	// ReadOnly refuses whatever would change the registry; default false.
	ReadOnly bool
	// Compatibility that is answered and, by the compatibility endpoints, checked. It should be
	// the one that Registry registers by; default BACKWARD_TRANSITIVE.
	Compatibility string
	// RequestTimeout bounds one request but a registration, which Registry bounds itself;
	// default 15 s. A request that it ends answers 503.
	RequestTimeout time.Duration
	Logger         *slog.Logger // default slog.Default()
}

func (c Config) withDefaults() Config {
	if c.Compatibility == "" {
		c.Compatibility = string(registry.BackwardTransitive)
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 15 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.Registry == nil {
		faults = append(faults, errors.New("Registry is nil: give the one to serve"))
	}
	switch registry.Compatibility(c.Compatibility) {
	case registry.BackwardTransitive, registry.Backward, registry.None:
	default:
		faults = append(faults, fmt.Errorf("Compatibility is %q: want %s, %s or %s", c.Compatibility,
			registry.BackwardTransitive, registry.Backward, registry.None))
	}
	if c.RequestTimeout < 0 {
		faults = append(faults, fmt.Errorf("RequestTimeout is %s: want more than 0", c.RequestTimeout))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("schema registry over HTTP: %w", err)
	}
	return nil
}

// New returns a handler of the API, whose paths have no prefix: mount it elsewhere by
// http.StripPrefix. It starts no goroutine and may be used from any.
func New(cfg Config) (http.Handler, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &server{
		registry: cfg.Registry, readOnly: cfg.ReadOnly, policy: registry.Compatibility(cfg.Compatibility),
		timeout: cfg.RequestTimeout, log: cfg.Logger, catalog: newCatalog(cfg.Registry), routes: routes(),
	}, nil
}

// server answers; it is immutable but for the catalog.
type server struct {
	registry registry.Registry
	readOnly bool
	policy   registry.Compatibility
	timeout  time.Duration
	log      *slog.Logger
	catalog  *catalog
	routes   []route
}
