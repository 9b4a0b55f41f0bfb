package client

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Config of a Client. The zero value of a field means its default.
type Config struct {
	// Namespace of the topics. Required over Kafka, of no meaning over HTTP.
	Namespace string

	// URL of the HTTP API, such as "https://events.example.com". When it is set all goes by HTTP,
	// and Kafka is not used.
	URL string
	// Token returns the bearer token of each request by HTTP; nil sends none.
	Token func() string
	// HTTPClient sends the requests. It must have no Timeout, since subscriptions last; requests
	// are bounded by AnswerTimeout. Default: one of its own.
	HTTPClient *http.Client

	// Kafka is what Kafka clients are made with: kgo.SeedBrokers and, where needed, TLS and SASL.
	// Required over Kafka.
	Kafka []kgo.Opt

	// Registry finds schemas: a [RegistryReader], a [TopicReader] or one's own. Default over HTTP: the
	// registry at <URL>/registry; over Kafka: the topic <ns>.schemas, where a project without
	// another registry keeps them.
	Registry codec.Reader
	// Types ties registered types to Go structs, as decider.Command, decider.Event and
	// projection.On make them. They are checked by New.
	Types []codec.TypeDef
	// Deciders add their types to Types, and fold State over Kafka.
	Deciders []decider.Any

	// Source is the ce_source of requests over Kafka. Default "foldstream-client".
	Source string
	// AnswerTimeout is how long one sending waits for its answer. Default 10 s, at most 25 s.
	AnswerTimeout time.Duration
	// Retry says how often a request whose outcome is unknown, or that found no room, is sent again.
	Retry Retry
	// InFlightMax bounds the requests that wait for answers; further ones wait for room. Default 1,024.
	InFlightMax int

	// BatchMax is how many asynchronous requests are sent together. Default 10.
	BatchMax int
	// BatchWait is how long a batch that is not full waits for more. Default 100 ms.
	BatchWait time.Duration
	// QueueMax bounds the asynchronous requests that are not settled; beyond, they fail with
	// ErrOverloaded. Default 10,000.
	QueueMax int

	// ScanBytesMax bounds what Load, Events, State and Lookup read over Kafka, in bytes of keys,
	// values and headers; beyond, they fail with ErrScanLimit. Default 1 GiB.
	ScanBytesMax int64

	Logger     *slog.Logger          // default: silent
	Registerer prometheus.Registerer // nil: no metrics
	Clock      func() time.Time      // default time.Now
}

// Retry is how something is tried again: after Wait, then twice that, and so on up to WaitMax,
// each with up to a fifth more at random.
type Retry struct {
	// Attempts is how often it is tried again after the first time. Default 3; negative: never.
	Attempts int
	// Wait before the first repetition. Default 1 s.
	Wait time.Duration
	// WaitMax bounds the wait. Default 30 s.
	WaitMax time.Duration
}

func (r Retry) withDefaults() Retry {
	orDefault(&r.Attempts, 3)
	orDefault(&r.Wait, time.Second)
	orDefault(&r.WaitMax, 30*time.Second)
	r.Attempts = max(r.Attempts, 0)
	return r
}

// pause is the wait before the nth repetition, from 1.
func (r Retry) pause(n int) time.Duration {
	wait := r.WaitMax
	if shift := n - 1; shift < 32 && r.Wait < r.WaitMax>>shift {
		wait = r.Wait << shift
	}
	const jitterShare = 5
	return wait + time.Duration(rand.Int64N(int64(wait)/jitterShare+1))
}

// Limits of what a configuration may ask for.
const (
	answerTimeoutMax = 25 * time.Second // the server's own
	inFlightLimit    = 100_000
	batchLimit       = 1_000 // requests in one POST /v1/append
	queueLimit       = 1_000_000
)

func (c Config) withDefaults() Config {
	orDefault(&c.Source, "foldstream-client")
	orDefault(&c.AnswerTimeout, 10*time.Second)
	orDefault(&c.InFlightMax, 1024)
	orDefault(&c.BatchMax, 10)
	orDefault(&c.BatchWait, 100*time.Millisecond)
	orDefault(&c.QueueMax, 10_000)
	orDefault(&c.ScanBytesMax, 1<<30)
	c.Retry = c.Retry.withDefaults()
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{Transport: newRoundTripper()}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.URL == "" {
		faults = append(faults, topics.ValidateNamespace(c.Namespace))
		if len(c.Kafka) == 0 {
			fault("give URL for HTTP, or Kafka")
		}
	} else if u, err := url.Parse(c.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		fault("URL: want http://host or https://host, with a path where the API has a prefix")
	}
	if c.AnswerTimeout < 0 || c.AnswerTimeout > answerTimeoutMax {
		fault("AnswerTimeout is %s: want at most %s", c.AnswerTimeout, answerTimeoutMax)
	}
	if c.Retry.Wait < 0 || c.Retry.WaitMax < c.Retry.Wait {
		fault("Retry.Wait is %s and WaitMax %s: want 0 < Wait <= WaitMax", c.Retry.Wait, c.Retry.WaitMax)
	}
	for _, n := range []struct {
		name       string
		value, max int
	}{{"InFlightMax", c.InFlightMax, inFlightLimit}, {"BatchMax", c.BatchMax, batchLimit}, {"QueueMax", c.QueueMax, queueLimit}} {
		if n.value < 1 || n.value > n.max {
			fault("%s is %d: want 1 to %d", n.name, n.value, n.max)
		}
	}
	if c.BatchWait < 0 || c.ScanBytesMax < 0 {
		fault("BatchWait is %s and ScanBytesMax %d: want more than 0", c.BatchWait, c.ScanBytesMax)
	}
	return errors.Join(faults...)
}
