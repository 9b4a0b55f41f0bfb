package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Config of an API. The zero value of a field means its default.
type Config struct {
	Namespace string
	// Postgres says how to connect. It is copied; the size of the pool, read-only transactions and
	// the statement timeout are set by Limits. Required.
	Postgres *pgxpool.Config
	// Role is taken on by each connection; default: that of the login.
	Role string
	// Views are the program's, for what Definitions say about them and for the document. Views that
	// only the database knows are served all the same.
	Views []projection.View
	// Definitions are answers beyond /v1/views.
	Definitions Definitions
	// Search names, by view, the text column that q= looks into. A trigram index makes it fast.
	Search map[string]string
	Limits Limits
	// Authorized says whether a request may pass; nil lets all pass. It must answer at once.
	Authorized func(*http.Request) bool
	// DocumentPath is where the OpenAPI document is served. Default /openapi.json.
	DocumentPath string
	// Version of the program, for the document. Default "dev".
	Version    string
	Registerer prometheus.Registerer // default: a registry of its own
	Logger     *slog.Logger          // default: silent
	Clock      func() time.Time      // default time.Now
}

// Definitions are the answers that a program gives beyond the rows of its views.
type Definitions struct {
	Resources  []Resource
	Statistics []Statistic
}

// Limits bound what clients may ask for. The zero value of a field means its default.
type Limits struct {
	// PoolMax bounds the connections; default 8.
	PoolMax int
	// QueueMax bounds the statements that wait for a connection; default 256. More is 429.
	QueueMax int
	// QueueTimeout bounds their wait; default 2 s. Longer is 429.
	QueueTimeout time.Duration
	// StatementTimeout bounds one statement; default 5 s. Longer is 503.
	StatementTimeout time.Duration
	// SlowQuery is the time from which a statement is logged, without its values; default 500 ms.
	SlowQuery time.Duration
	// ResponseBytesMax bounds an answer; default 8 MiB. A page ends before it, and goes on by its
	// cursor.
	ResponseBytesMax int
	// WaitersMax bounds the requests that wait by wait=; default 4096. More is 429.
	WaitersMax int
	// CatalogueAge is how old the list of live views may become; default 1 s.
	CatalogueAge time.Duration
}

// Limits that are not configured; they are part of the API.
const (
	limitDefault     = 50
	limitMax         = 500
	filtersMax       = 20
	inMax            = 100 // values of one in
	sortMax          = 4   // columns
	valueBytesMax    = 2048
	cursorBytesMax   = 8192
	faultsMax        = 50 // that a problem names
	waitDefault      = 2 * time.Second
	waitMax          = 25 * time.Second
	periodsMax       = 1000 // of statistics
	correlationMax   = 1000 // events in one answer
	searchRunesMin   = 2
	searchRunesMax   = 200
	readyAge         = 15 * time.Second
	connectionIdle   = "10s"
	applicationName  = "foldstream-query"
	documentPathHere = "/openapi.json"
)

func (l Limits) withDefaults() Limits {
	def(&l.PoolMax, 8)
	def(&l.QueueMax, 256)
	def(&l.QueueTimeout, 2*time.Second)
	def(&l.StatementTimeout, 5*time.Second)
	def(&l.SlowQuery, 500*time.Millisecond)
	def(&l.ResponseBytesMax, 8<<20)
	def(&l.WaitersMax, 4096)
	def(&l.CatalogueAge, time.Second)
	return l
}

// pageBytesMax leaves room for the cursor.
func (l Limits) pageBytesMax() int {
	return l.ResponseBytesMax - min(cursorBytesMax, l.ResponseBytesMax/4)
}

func (l Limits) validate() error {
	var faults []error
	for _, n := range []struct {
		name       string
		value, low int64
	}{
		{"PoolMax", int64(l.PoolMax), 1}, {"QueueMax", int64(l.QueueMax), 1}, {"WaitersMax", int64(l.WaitersMax), 1},
		{"ResponseBytesMax", int64(l.ResponseBytesMax), 1 << 10},
		{"QueueTimeout", l.QueueTimeout.Milliseconds(), 1}, {"StatementTimeout", l.StatementTimeout.Milliseconds(), 1},
		{"SlowQuery", l.SlowQuery.Nanoseconds(), 1}, {"CatalogueAge", l.CatalogueAge.Milliseconds(), 1},
	} {
		if n.value < n.low {
			faults = append(faults, fmt.Errorf("query: %s is below its least, %d (milliseconds for times)", n.name, n.low))
		}
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
	def(&c.DocumentPath, documentPathHere)
	def(&c.Version, "dev")
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

func (c Config) validate() error {
	faults := []error{topics.ValidateNamespace(c.Namespace), c.Limits.validate(), c.Definitions.validate(c.Views)}
	if c.Postgres == nil {
		faults = append(faults, errors.New("query: Postgres is required"))
	}
	for _, v := range c.Views {
		faults = append(faults, v.Validate())
	}
	return errors.Join(faults...)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// API serves the read side. It is an http.Handler for the paths that Patterns lists. Made by New;
// Run keeps its catalogue fresh; Close releases its connections.
type API struct {
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	pool      *pgxpool.Pool
	catalogue catalogue
	waits     waits
	openapi   *huma.OpenAPI
	served    []byte // the document
	mux       *http.ServeMux
	paths     []string            // of routes, in order
	methods   map[string][]string // by path

	queued   atomic.Int64 // statements that run or wait for a connection
	draining chan struct{}
	drain    sync.Once
	closing  sync.Once
}

// New checks the configuration and makes the routes. It does not connect yet. The caller closes
// what it returns.
func New(cfg Config) (*API, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	a := &API{
		cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), methods: map[string][]string{},
		draining: make(chan struct{}), openapi: newDocument(cfg.Version),
	}
	a.catalogue.init(a)
	a.waits.init(a)
	if err := a.connect(); err != nil {
		return nil, err
	}
	a.registerViews()
	a.registerResources()
	a.registerStatistics()
	a.registerCorrelations()
	if err := a.serveDocument(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// connect makes the pool, whose connections can only read, and the metrics, which tell of it.
func (a *API) connect() error {
	pg := a.cfg.Postgres.Copy()
	pg.MaxConns = int32(min(a.cfg.Limits.PoolMax, 1<<15))
	pg.MinConns = min(pg.MinConns, pg.MaxConns)
	pg.MinIdleConns = min(pg.MinIdleConns, pg.MaxConns)
	params := pg.ConnConfig.RuntimeParams
	params["default_transaction_read_only"] = "on"
	params["default_transaction_isolation"] = "repeatable read" // one snapshot for what is read together
	params["statement_timeout"] = fmt.Sprint(a.cfg.Limits.StatementTimeout.Milliseconds())
	params["idle_in_transaction_session_timeout"] = connectionIdle
	params["application_name"] = applicationName
	if a.cfg.Role != "" {
		params["role"] = a.cfg.Role
	}
	var err error
	if a.pool, err = pgxpool.NewWithConfig(context.Background(), pg); err != nil {
		return fmt.Errorf("query: make the pool of connections: %w", err)
	}
	if a.metrics, err = newMetrics(a.cfg.Registerer, a.pool); err != nil {
		a.pool.Close()
		return fmt.Errorf("query: %w", err)
	}
	return nil
}

// Run keeps the list of live views fresh until ctx ends, then drains.
func (a *API) Run(ctx context.Context) error {
	defer a.Drain()
	tick := time.NewTicker(a.cfg.Limits.CatalogueAge)
	defer tick.Stop()
	for {
		a.catalogue.refresh(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ready says why reads would fail now, or nil. It answers at once.
func (a *API) Ready() error { return a.catalogue.ready() }

// Drain ends waits, so that a server can stop. Other requests go on. It may be called twice.
func (a *API) Drain() { a.drain.Do(func() { close(a.draining) }) }

// Close ends waits and closes the connections once they are given back, a bounded time. It may be
// called twice.
func (a *API) Close() {
	a.closing.Do(func() {
		a.Drain()
		a.waits.close()
		service.ClosePool(a.pool)
	})
}

// Patterns lists what a server hands to the API: patterns of http.ServeMux without a method.
func (a *API) Patterns() []string {
	return append([]string{a.cfg.DocumentPath}, a.roots()...)
}
