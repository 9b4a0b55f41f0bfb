package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/sr"
)

// ConfluentConfig configures a Confluent. The zero value of a field means its default.
type ConfluentConfig struct {
	// Opts connect to the registry: sr.URLs, sr.BasicAuth, sr.BearerToken, sr.DialTLSConfig. Required.
	Opts []sr.ClientOpt
	// Compatibility that a new version needs, checked here before the registry's own policy is;
	// default BackwardTransitive.
	Compatibility Compatibility
	// DefaultKind is the kind of a type whose schema has no fs.kind; default: every one is an event.
	DefaultKind func(typ string) event.Kind
	// RequestTimeout bounds one lookup with all its requests; default 10 s.
	RequestTimeout time.Duration
	// RegisterTimeout bounds one registration; default 60 s.
	RegisterTimeout time.Duration
	// LatestLife is how long the answer to Latest is believed; default 30 s.
	LatestLife time.Duration
	// AbsentLife is how long "there is no such schema" is believed; default 1 s.
	AbsentLife time.Duration
	Clock      func() time.Time // default time.Now
	Logger     *slog.Logger     // default slog.Default()
}

func (c ConfluentConfig) withDefaults() ConfluentConfig {
	c.Compatibility = c.Compatibility.withDefault()
	orDefault(&c.RequestTimeout, 10*time.Second)
	orDefault(&c.RegisterTimeout, time.Minute)
	orDefault(&c.LatestLife, 30*time.Second)
	orDefault(&c.AbsentLife, time.Second)
	if c.DefaultKind == nil {
		c.DefaultKind = func(string) event.Kind { return event.KindEvent }
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c ConfluentConfig) validate() error {
	faults := []error{c.Compatibility.validate()}
	if len(c.Opts) == 0 {
		faults = append(faults, errors.New("Opts is empty: give the registry's URL"))
	}
	for name, d := range map[string]time.Duration{
		"RequestTimeout": c.RequestTimeout, "RegisterTimeout": c.RegisterTimeout, "LatestLife": c.LatestLife, "AbsentLife": c.AbsentLife,
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

// Scans of all subjects, which a lookup by fingerprint or by a mapped type needs.
const (
	scanBurst     = 5
	scanPerSecond = 1
)

// Confluent is a Registry over a Confluent-compatible registry. The subject of a type is its
// record's full name (RecordNameStrategy). Such a registry keeps nothing but a schema's text, so
// kind and type stand in the text's properties; Register writes the kind in where it is missing.
//
// What it has read is remembered for good, but for Latest: ids and versions never change.
type Confluent struct {
	cfg    ConfluentConfig
	client *sr.Client
	absent absent
	scans  *budget

	mu     sync.RWMutex
	index  *index
	latest map[string]time.Time // type → until when index.latest is believed

	registering sync.Mutex
}

var _ Registry = (*Confluent)(nil)

// NewConfluent checks the configuration; nothing is asked yet.
func NewConfluent(cfg ConfluentConfig) (*Confluent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := sr.NewClient(cfg.Opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: make a client: %w", err)
	}
	return &Confluent{
		cfg: cfg, client: client, absent: absent{life: cfg.AbsentLife}, scans: newBudget(scanBurst, scanPerSecond),
		index: newIndex(), latest: map[string]time.Time{},
	}, nil
}

// Close does nothing: no goroutine runs, and connections are the HTTP client's.
func (c *Confluent) Close() {}

// ByID implements codec.Reader.
func (c *Confluent) ByID(ctx context.Context, id int32) (*codec.Registered, error) {
	return c.lookUp(ctx, id, fmt.Sprintf("id %d", id),
		func(x *index) *codec.Registered { return x.byID[id] },
		func(ctx context.Context) (*codec.Registered, error) { return c.fetchID(ctx, id) })
}

// ByFingerprint implements codec.Reader. The registry does not know fingerprints, so an unknown
// one makes it be scanned, at most once a second.
func (c *Confluent) ByFingerprint(ctx context.Context, fingerprint codec.Fingerprint) (*codec.Registered, error) {
	what := "fingerprint " + fingerprint.String()
	find := func(x *index) *codec.Registered { return x.byFingerprint[fingerprint] }
	return c.lookUp(ctx, fingerprint, what, find, func(ctx context.Context) (*codec.Registered, error) {
		return c.fetchByScan(ctx, what, find)
	})
}

// Latest implements codec.Reader. A new version is seen after LatestLife.
func (c *Confluent) Latest(ctx context.Context, typ string) (*codec.Registered, error) {
	if err := checkType(typ); err != nil {
		return nil, fmt.Errorf("%w: %w", codec.ErrUnknownSchema, err)
	}
	return c.lookUp(ctx, typ, fmt.Sprintf("type %q", clip(typ)),
		func(x *index) *codec.Registered {
			if c.cfg.Clock().Before(c.latest[typ]) {
				return x.latest(typ)
			}
			return nil
		},
		func(ctx context.Context) (*codec.Registered, error) { return c.fetchLatest(ctx, typ) })
}

// Version implements codec.Reader.
func (c *Confluent) Version(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	if err := checkType(typ); err != nil {
		return nil, fmt.Errorf("%w: %w", codec.ErrUnknownSchema, err)
	}
	what := fmt.Sprintf("type %q version %d", clip(typ), version)
	if version < 1 {
		return nil, unknown(what) // the registry would take -1 for the latest
	}
	return c.lookUp(ctx, rowKey(typ, version), what,
		func(x *index) *codec.Registered { return x.version(typ, version) },
		func(ctx context.Context) (*codec.Registered, error) { return c.fetchVersion(ctx, typ, version) })
}

// List implements Registry. Subjects that are no types of ours are left out.
func (c *Confluent) List(ctx context.Context) ([]*codec.Registered, error) {
	if err := c.scan(ctx); err != nil {
		return nil, err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.list(), nil
}

// lookUp answers from memory, or asks, and remembers for a short while that there is nothing.
func (c *Confluent) lookUp(ctx context.Context, key any, what string, find func(*index) *codec.Registered,
	fetch func(context.Context) (*codec.Registered, error),
) (*codec.Registered, error) {
	c.mu.RLock()
	reg := find(c.index)
	c.mu.RUnlock()
	if reg != nil {
		return reg, nil
	}
	if c.absent.has(key, c.cfg.Clock()) {
		return nil, unknown(what)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	reg, err := fetch(ctx)
	switch {
	case err == nil:
		return reg, nil
	case errors.Is(err, codec.ErrUnknownSchema):
		c.absent.add(key, c.cfg.Clock())
		return nil, fmt.Errorf("schema with %s: %w", what, err)
	}
	return nil, fmt.Errorf("look up the schema with %s: %w", what, err)
}

// fetchID asks for the text and then for the subjects that it stands under: a text alone does
// not say its version, and one that stands under a topic's name only is refused.
func (c *Confluent) fetchID(ctx context.Context, id int32) (*codec.Registered, error) {
	if id < 1 {
		return nil, unknown(fmt.Sprintf("id %d", id))
	}
	text, err := c.client.SchemaByID(ctx, int(id))
	if err != nil {
		return nil, answer(err)
	}
	uses, err := c.uses(ctx, id, text)
	if err != nil {
		return nil, err
	}
	var subjects []string
	for _, use := range uses {
		subject := sr.SubjectSchema{Subject: use.Subject, Version: use.Version, ID: int(id), Schema: text}
		if reg, err := c.read(subject); err == nil {
			return c.remember(reg)
		}
		subjects = append(subjects, use.Subject)
	}
	return nil, c.noUse(sr.SubjectSchema{ID: int(id), Schema: text}, subjects)
}

// uses returns where a schema stands. Registries that do not have that question are asked for
// the text under its own name.
func (c *Confluent) uses(ctx context.Context, id int32, text sr.Schema) ([]sr.SubjectVersion, error) {
	uses, err := c.client.SchemaVersionsByID(ctx, int(id))
	if err = answer(err); !errors.Is(err, codec.ErrUnknownSchema) {
		return uses, err
	}
	schema, err := codec.Parse(text.Schema)
	if err != nil {
		return nil, fmt.Errorf("%w for Foldstream: %w", codec.ErrUnknownSchema, err)
	}
	s, err := c.client.LookupSchema(ctx, schema.Name(), text)
	if err != nil {
		return nil, answer(err)
	}
	if s.ID != int(id) {
		return nil, fmt.Errorf("%w under %q with this id: there it has id %d", codec.ErrUnknownSchema, clip(schema.Name()), s.ID)
	}
	return []sr.SubjectVersion{{Subject: s.Subject, Version: s.Version}}, nil
}

// noUse says why a schema that is there is none of ours.
func (c *Confluent) noUse(s sr.SubjectSchema, subjects []string) error {
	if i := slices.IndexFunc(subjects, topicSubject); i >= 0 {
		return fmt.Errorf("%w for Foldstream: %w", codec.ErrUnknownSchema, checkType(subjects[i]))
	}
	if len(subjects) == 0 {
		return fmt.Errorf("%w under any subject", codec.ErrUnknownSchema)
	}
	s.Subject, s.Version = subjects[0], 1
	_, err := c.read(s)
	return fmt.Errorf("%w for Foldstream: it stands under %q: %w", codec.ErrUnknownSchema, clip(subjects[0]), err)
}

func (c *Confluent) fetchVersion(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	reg, err := c.fetchSubject(ctx, c.subject(typ), version)
	if errors.Is(err, codec.ErrUnknownSchema) {
		return c.fetchByScan(ctx, rowKey(typ, version), func(x *index) *codec.Registered { return x.version(typ, version) })
	}
	return reg, err
}

func (c *Confluent) fetchLatest(ctx context.Context, typ string) (*codec.Registered, error) {
	reg, err := c.fetchSubject(ctx, c.subject(typ), versionLatest)
	if errors.Is(err, codec.ErrUnknownSchema) {
		reg, err = c.fetchByScan(ctx, typ, func(x *index) *codec.Registered { return x.latest(typ) })
	}
	if err == nil {
		c.mu.Lock()
		c.latest[typ] = c.cfg.Clock().Add(c.cfg.LatestLife)
		c.mu.Unlock()
	}
	return reg, err
}

// versionLatest asks the registry for a subject's latest version.
const versionLatest = -1

func (c *Confluent) fetchSubject(ctx context.Context, subject string, version int) (*codec.Registered, error) {
	s, err := c.client.SchemaByVersion(ctx, subject, version)
	if err != nil {
		return nil, answer(err)
	}
	reg, err := c.read(s)
	if err != nil {
		return nil, fmt.Errorf("%w for Foldstream: subject %q: %w", codec.ErrUnknownSchema, clip(subject), err)
	}
	return c.remember(reg)
}

// fetchByScan looks at all subjects, at most scanPerSecond; between scans the last one answers.
func (c *Confluent) fetchByScan(ctx context.Context, what string, find func(*index) *codec.Registered) (*codec.Registered, error) {
	if c.scans.take(c.cfg.Clock()) {
		if err := c.scan(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if reg := find(c.index); reg != nil {
		return reg, nil
	}
	return nil, unknown(what)
}

// scan reads every version of every subject that may be a type and was not read before.
func (c *Confluent) scan(ctx context.Context) error {
	subjects, err := c.client.Subjects(ctx)
	if err != nil {
		return fmt.Errorf("list the registry's subjects: %w", err)
	}
	for _, subject := range subjects {
		if topicSubject(subject) || !strings.Contains(subject, ".") {
			continue
		}
		if err := c.scanSubject(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}

func (c *Confluent) scanSubject(ctx context.Context, subject string) error {
	versions, err := c.client.SubjectVersions(ctx, subject)
	if err != nil {
		if errors.Is(answer(err), codec.ErrUnknownSchema) {
			return nil // deleted since it was listed
		}
		return fmt.Errorf("list the versions of subject %q: %w", clip(subject), err)
	}
	for _, version := range versions {
		if c.knows(subject, version) {
			continue
		}
		_, err := c.fetchSubject(ctx, subject, version)
		if errors.Is(err, codec.ErrUnknownSchema) {
			c.cfg.Logger.Debug("schema of another kind of user is left out", "subject", subject, "version", version, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("read subject %q version %d: %w", clip(subject), version, err)
		}
	}
	return nil
}

// read makes a registration of what the registry answered.
func (c *Confluent) read(s sr.SubjectSchema) (*codec.Registered, error) {
	if s.Type != sr.TypeAvro {
		return nil, fmt.Errorf("schema %d is %s, not Avro", s.ID, s.Type)
	}
	if len(s.References) > 0 {
		return nil, fmt.Errorf("schema %d has references: register it with its types written out", s.ID)
	}
	schema, err := codec.Parse(s.Schema.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", s.ID, err)
	}
	if s.Subject != schema.Name() {
		return nil, fmt.Errorf("schema %d is named %q: the subject must be the record's name (RecordNameStrategy)", s.ID, clip(schema.Name()))
	}
	typ, _ := Describe(schema, "")
	if err := checkType(typ); err != nil {
		return nil, err
	}
	_, kind := Describe(schema, c.cfg.DefaultKind(typ))
	if err := checkKind(kind); err != nil {
		return nil, fmt.Errorf("schema %d: %w", s.ID, err)
	}
	return &codec.Registered{ID: int32(s.ID), Type: typ, Version: s.Version, Kind: kind, Schema: schema}, nil
}

func (c *Confluent) remember(reg *codec.Registered) (*codec.Registered, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.index.add(reg); err != nil {
		return nil, fmt.Errorf("%w for Foldstream: %w", codec.ErrUnknownSchema, err)
	}
	return c.index.version(reg.Type, reg.Version), nil
}

func (c *Confluent) knows(subject string, version int) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	typ, there := c.index.typeOfName[subject]
	return there && c.index.version(typ, version) != nil
}

// subject of a type: its record's name, which is the type itself unless fs.type maps it.
func (c *Confluent) subject(typ string) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if latest := c.index.latest(typ); latest != nil {
		return latest.Schema.Name()
	}
	return typ
}

// answer tells "there is none" from a registry that does not answer.
func answer(err error) error {
	var response *sr.ResponseError
	if !errors.As(err, &response) || response.StatusCode != http.StatusNotFound {
		return err
	}
	return fmt.Errorf("%w (the registry answers %d: %s)", codec.ErrUnknownSchema, response.ErrorCode, clip(response.Message))
}
