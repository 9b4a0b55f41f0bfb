package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/ingest/gateway"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
)

// Gateway brings a request to its owner. *gateway.Gateway is one.
type Gateway interface {
	Do(ctx context.Context, r gateway.Request) (engine.Outcome, error)
}

// Category is one category of the project.
type Category struct {
	Name string
	Mode topics.Mode // external ones are unknown here: their topics have readers of their own
}

// Config of an API. The zero value of a field means its default.
type Config struct {
	Namespace  string
	Categories []Category
	// Gateway takes what is written. Required.
	Gateway Gateway
	// Codec and Registry encode JSON by the latest schema of a type. Required.
	Codec    *codec.Codec
	Registry codec.Reader
	// Streams reads single streams and feeds subscriptions. Nil: there are no reads.
	Streams *streams.Store
	Limits  Limits
	// Authorized says whether a request may pass; nil lets all pass. It must answer at once.
	Authorized func(*http.Request) bool
	Registerer prometheus.Registerer // default: a registry of its own
	Logger     *slog.Logger          // default: silent
	Clock      func() time.Time      // default time.Now
}

// Limits bound what clients may ask for. The zero value of a field means its default.
type Limits struct {
	// BodyBytesMax bounds a body for one stream; default 1 MiB. More is 413.
	BodyBytesMax int
	// BatchBytesMax bounds a body for many streams; default 8 MiB.
	BatchBytesMax int
	// InFlightMax bounds the requests that are worked on at once; default 4096. More is 429.
	InFlightMax int
	// InFlightBytesMax bounds their bodies, and the pages that are read, together; default 256 MiB.
	// More is 429. No page has more than a quarter of it.
	InFlightBytesMax int64
	// SubscribersMax bounds the subscriptions that are open at once; default 256. More is 429.
	SubscribersMax int
	// RequestTimeout is how long an outcome is waited for where the client names no time; default
	// 10 s, at most TimeoutMax.
	RequestTimeout time.Duration
}

// TimeoutMax is the longest wait that a client may ask for.
const TimeoutMax = 25 * time.Second

// Limits that are not configured; they are part of the API.
const (
	eventsMax      = codec.AppendEventsMax        // of one request
	requestsMax    = codec.AppendBatchRequestsMax // of one batch
	batchEventsMax = codec.AppendBatchEventsMax   // of one batch
	depthMax       = 64                           // of JSON
	faultsMax      = 50                           // that a problem names
	batchValuesMax = 1_000_000                    // Avro values of a batch's envelopes
	inBatchesMax   = 65_536                       // requests of all batches that are worked on
	batchWorkers   = 256                          // streams of one batch that are worked on at once
)

func (l Limits) withDefaults() Limits {
	def(&l.BodyBytesMax, 1<<20)
	def(&l.BatchBytesMax, 8<<20)
	def(&l.InFlightMax, 4096)
	def(&l.InFlightBytesMax, 256<<20)
	def(&l.SubscribersMax, 256)
	def(&l.RequestTimeout, 10*time.Second)
	return l
}

func (l Limits) validate() error {
	var faults []error
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"BodyBytesMax", int64(l.BodyBytesMax)}, {"BatchBytesMax", int64(l.BatchBytesMax)},
		{"InFlightMax", int64(l.InFlightMax)}, {"SubscribersMax", int64(l.SubscribersMax)},
	} {
		if n.value < 1 {
			faults = append(faults, fmt.Errorf("httpapi: %s %d is below 1", n.name, n.value))
		}
	}
	if most := int64(max(l.BodyBytesMax, l.BatchBytesMax)); l.InFlightBytesMax < most {
		faults = append(faults, fmt.Errorf("httpapi: InFlightBytesMax %d is below one body's limit, %d", l.InFlightBytesMax, most))
	}
	if l.RequestTimeout < time.Millisecond || l.RequestTimeout > TimeoutMax {
		faults = append(faults, fmt.Errorf("httpapi: RequestTimeout %s is not within 1 ms and %s", l.RequestTimeout, TimeoutMax))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
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
	faults := []error{topics.ValidateNamespace(c.Namespace), c.Limits.validate()}
	if c.Gateway == nil || c.Codec == nil || c.Registry == nil {
		faults = append(faults, errors.New("httpapi: Gateway, Codec and Registry are required"))
	}
	return errors.Join(faults...)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// API serves /v1/… and /openapi.json. It is an http.Handler.
type API struct {
	cfg        Config
	log        *slog.Logger
	metrics    *web.Metrics
	net        web.Net         // under all handlers
	categories map[string]bool // those that are served
	openapi    *huma.OpenAPI
	served     []byte // /openapi.json
	mux        *http.ServeMux
	paths      map[string][]string // methods, by path pattern

	envelope   atomic.Pointer[codec.Binding] // of foldstream.Append
	batch      atomic.Pointer[codec.Binding] // of foldstream.AppendBatch
	batchCodec *codec.Codec                  // with room for a whole batch

	inFlight      atomic.Int64
	inFlightBytes atomic.Int64 // of bodies, and of pages that are read
	inBatches     atomic.Int64 // requests of batches
	subscribers   atomic.Int64

	draining context.Context //nolint:containedctx // of all subscriptions; ended by Drain
	drain    context.CancelFunc
}

// New checks the configuration and makes the routes. It connects to nothing.
func New(cfg Config) (*API, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	a := &API{
		cfg: cfg, log: cfg.Logger, categories: map[string]bool{}, mux: http.NewServeMux(),
		paths: map[string][]string{}, openapi: newDocument(),
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	a.batchCodec = codec.New(cfg.Registry, codec.Config{Limits: codec.Limits{
		BytesMax: cfg.Limits.BatchBytesMax, ValuesMax: batchValuesMax,
	}})
	for _, c := range cfg.Categories {
		a.categories[c.Name] = c.Mode != topics.ModeExternal
	}
	var err error
	if a.metrics, err = web.NewMetrics(cfg.Registerer, "http"); err != nil {
		return nil, err
	}
	a.net = web.Net{Logger: cfg.Logger, Panics: a.metrics.Panics}
	a.registerWrites()
	a.registerReads()
	a.registerSubscribe()
	return a, a.serveDocument()
}

// Drain ends open subscriptions, so that a server can stop. Requests under way go on. It may be
// called twice.
func (a *API) Drain() { a.drain() }
