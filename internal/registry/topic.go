package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicConfig configures a Topic. The zero value of a field means its default.
type TopicConfig struct {
	// Opts connect the registry's own Kafka clients (seeds, TLS, SASL, client id). Required.
	Opts []kgo.Opt
	// Namespace whose schemas topic it is. Required.
	Namespace string
	// Compatibility that a new version needs; default BackwardTransitive.
	Compatibility Compatibility
	// Instance names this process in the claim record; default "schema".
	Instance string
	// LoadTimeout bounds the first read of the topic; default 30 s.
	LoadTimeout time.Duration
	// RefreshTimeout bounds the read to the end that an unknown id causes; default 5 s.
	RefreshTimeout time.Duration
	// RegisterTimeout bounds one registration with all its attempts; default 60 s.
	RegisterTimeout time.Duration
	// AbsentLife is how long "there is no such schema" is believed for one id; default 1 s.
	AbsentLife time.Duration
	Clock      func() time.Time // default time.Now
	Logger     *slog.Logger     // default slog.Default()
}

func (c TopicConfig) withDefaults() TopicConfig {
	c.Compatibility = c.Compatibility.withDefault()
	orDefault(&c.Instance, "schema")
	orDefault(&c.LoadTimeout, 30*time.Second)
	orDefault(&c.RefreshTimeout, 5*time.Second)
	orDefault(&c.RegisterTimeout, time.Minute)
	orDefault(&c.AbsentLife, time.Second)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c TopicConfig) validate() error {
	faults := []error{topics.ValidateNamespace(c.Namespace), c.Compatibility.validate()}
	if len(c.Opts) == 0 {
		faults = append(faults, errors.New("Opts is empty: give the seed brokers"))
	}
	for name, d := range map[string]time.Duration{
		"LoadTimeout": c.LoadTimeout, "RefreshTimeout": c.RefreshTimeout, "RegisterTimeout": c.RegisterTimeout, "AbsentLife": c.AbsentLife,
	} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("%s is %s: want more than 0", name, d))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("schema registry configuration: %w", err)
	}
	return nil
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// How often unknown ids may make a Topic ask the broker. Beyond, an unknown id is answered by
// what the last refresh saw, which is then some milliseconds old.
const (
	refreshBurst     = 50
	refreshPerSecond = 50
)

// Topic is a Registry over the compacted topic <ns>.schemas. It connects and reads at first use.
type Topic struct {
	cfg    TopicConfig
	topic  string
	client *kgo.Client // metadata and end offsets
	admin  *kadm.Client
	tail   *tail

	absent absent
	budget *budget

	startMu  sync.Mutex // guards the start of the tail
	started  bool
	loaded   chan struct{} // closed when the topic was read to its end once
	loadOnce sync.Once

	registering sync.Mutex // one registration at a time in a process: they would fence each other
	newAppender func() (appender.API, error)
}

var _ Registry = (*Topic)(nil)

// NewTopic checks the configuration; nothing is read yet.
func NewTopic(cfg TopicConfig) (*Topic, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(cfg.Opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: make a Kafka client: %w", err)
	}
	t := &Topic{
		cfg: cfg, topic: topics.Schemas(cfg.Namespace), client: client, admin: kadm.NewClient(client),
		absent: absent{life: cfg.AbsentLife}, budget: newBudget(refreshBurst, refreshPerSecond),
		loaded: make(chan struct{}),
	}
	t.tail = newTail(t.topic, cfg.Logger)
	t.newAppender = t.ownAppender
	return t, nil
}

// Close stops following the topic. It may be called twice.
func (t *Topic) Close() {
	t.startMu.Lock()
	t.started = true // a Topic that never started does not start any more
	t.startMu.Unlock()
	t.tail.stop()
	t.client.Close()
}

// Skipped counts the records of the topic that were no rows: unreadable, or in conflict with an
// earlier one.
func (t *Topic) Skipped() int64 { return t.tail.skipped.Load() }

// ByID implements codec.Reader.
func (t *Topic) ByID(ctx context.Context, id int32) (*codec.Registered, error) {
	return t.lookUp(ctx, lookup{
		key: id, what: fmt.Sprintf("id %d", id),
		find: func(x *index) *codec.Registered { return x.byID[id] },
		// Ids are given in ascending order and never again, and the topic is read in order: what
		// lies below the highest id and is not there never comes.
		hopeless: func(x *index) bool { return id < 1 || id <= x.highestID },
	})
}

// ByFingerprint implements codec.Reader.
func (t *Topic) ByFingerprint(ctx context.Context, fingerprint codec.Fingerprint) (*codec.Registered, error) {
	return t.lookUp(ctx, lookup{
		key: fingerprint, what: "fingerprint " + fingerprint.String(),
		find: func(x *index) *codec.Registered { return x.byFingerprint[fingerprint] },
	})
}

// Latest implements codec.Reader.
func (t *Topic) Latest(ctx context.Context, typ string) (*codec.Registered, error) {
	if err := checkType(typ); err != nil {
		return nil, fmt.Errorf("%w: %w", codec.ErrUnknownSchema, err)
	}
	return t.lookUp(ctx, lookup{
		key: typ, what: fmt.Sprintf("type %q", clip(typ)),
		find: func(x *index) *codec.Registered { return x.latest(typ) },
	})
}

// Version implements codec.Reader.
func (t *Topic) Version(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	if err := checkType(typ); err != nil {
		return nil, fmt.Errorf("%w: %w", codec.ErrUnknownSchema, err)
	}
	return t.lookUp(ctx, lookup{
		key: rowKey(typ, version), what: fmt.Sprintf("type %q version %d", clip(typ), version),
		find: func(x *index) *codec.Registered { return x.version(typ, version) },
	})
}

// List implements Registry. It reads to the topic's end first.
func (t *Topic) List(ctx context.Context) ([]*codec.Registered, error) {
	if err := t.refresh(ctx, t.cfg.LoadTimeout); err != nil {
		return nil, err
	}
	var regs []*codec.Registered
	t.tail.view(func(x *index) { regs = x.list() })
	return regs, nil
}

// lookup is one question.
type lookup struct {
	key      any
	what     string
	find     func(*index) *codec.Registered
	hopeless func(*index) bool // it cannot come any more; may be nil
}

// lookUp answers from memory; else it reads to the topic's end, unless that was done for the
// same question a moment ago or is being done too often.
func (t *Topic) lookUp(ctx context.Context, l lookup) (*codec.Registered, error) {
	reg, hopeless := t.ask(l)
	if reg != nil {
		return reg, nil
	}
	if hopeless {
		return nil, unknown(l.what)
	}
	now := t.cfg.Clock()
	timeout := t.cfg.RefreshTimeout
	if !t.isLoaded() {
		timeout = t.cfg.LoadTimeout
	} else if t.absent.has(l.key, now) || !t.budget.take(now) {
		return nil, unknown(l.what)
	}
	if err := t.refresh(ctx, timeout); err != nil {
		return nil, fmt.Errorf("look up the schema with %s: %w", l.what, err)
	}
	if reg, _ = t.ask(l); reg != nil {
		return reg, nil
	}
	t.absent.add(l.key, t.cfg.Clock())
	return nil, unknown(l.what)
}

func (t *Topic) ask(l lookup) (reg *codec.Registered, hopeless bool) {
	t.tail.view(func(x *index) {
		reg = l.find(x)
		hopeless = reg == nil && l.hopeless != nil && l.hopeless(x)
	})
	return reg, hopeless
}

func unknown(what string) error { return fmt.Errorf("%w: %s", codec.ErrUnknownSchema, what) }

func (t *Topic) isLoaded() bool {
	select {
	case <-t.loaded:
		return true
	default:
		return false
	}
}

// refresh reads to the end offset that the topic has now.
func (t *Topic) refresh(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := t.start(ctx); err != nil {
		return err
	}
	before := t.tail.at() // taken first: the tail moves on meanwhile
	end, err := t.endOffset(ctx)
	if err != nil {
		return err
	}
	if end < before {
		return fmt.Errorf("%s ends at offset %d, but was read to %d before: it lost records, or was deleted and created again; restart this service", t.topic, end, before)
	}
	if err := t.tail.wait(ctx, end); err != nil {
		return err
	}
	t.loadOnce.Do(func() { close(t.loaded) })
	return nil
}

// start begins to follow the topic, once it is there.
func (t *Topic) start(ctx context.Context) error {
	t.startMu.Lock()
	defer t.startMu.Unlock()
	if t.started {
		return nil
	}
	if _, err := topics.IDs(ctx, t.admin, t.topic); err != nil {
		return fmt.Errorf("find the schemas topic: %w", err)
	}
	if err := t.tail.start(t.cfg.Opts); err != nil {
		return err
	}
	t.started = true
	return nil
}

func (t *Topic) endOffset(ctx context.Context) (int64, error) {
	offsets, err := t.admin.ListEndOffsets(ctx, t.topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("read the end offset of %s: %w", t.topic, err)
	}
	end, there := offsets.Lookup(t.topic, 0)
	if !there {
		return 0, fmt.Errorf("read the end offset of %s: the broker does not name partition 0", t.topic)
	}
	return end.Offset, nil
}
