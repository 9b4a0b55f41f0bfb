package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/sr"
)

// RegistryReader finds schemas in a registry with Confluent's API, such as the one that Foldstream
// serves at <URL>/registry. The subject of a type is the type itself, which is the full name of its
// record. It remembers what never changes: ids and versions.
//
// All methods may be called from any goroutine; there is nothing to close.
type RegistryReader struct {
	client *sr.Client
	now    func() time.Time

	mu     sync.Mutex
	byID   map[int32]*codec.Registered
	latest map[string]latestOf
}

type latestOf struct {
	reg   *codec.Registered
	until time.Time
}

const (
	registryTimeout = 10 * time.Second
	latestLife      = 30 * time.Second
	registeredMax   = 100_000
)

// NewRegistryReader makes a reader of the registry at a URL. client sends its requests, with
// whatever it takes to be let in; nil is http.DefaultClient.
func NewRegistryReader(url string, client *http.Client) (*RegistryReader, error) {
	opts := []sr.ClientOpt{sr.URLs(url)}
	if client != nil {
		opts = append(opts, sr.HTTPClient(client))
	}
	c, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	return &RegistryReader{client: c, now: time.Now, byID: map[int32]*codec.Registered{}, latest: map[string]latestOf{}}, nil
}

// ByID implements codec.Reader.
func (r *RegistryReader) ByID(ctx context.Context, id int32) (*codec.Registered, error) {
	if reg := r.find(func(reg *codec.Registered) bool { return reg.ID == id }, id); reg != nil {
		return reg, nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	text, err := r.client.SchemaByID(ctx, int(id))
	if err != nil {
		return nil, lookUpFailed(fmt.Sprintf("id %d", id), err)
	}
	uses, err := r.client.SchemaVersionsByID(ctx, int(id))
	if err != nil {
		return nil, lookUpFailed(fmt.Sprintf("id %d", id), err)
	}
	err = codec.ErrUnknownSchema
	for _, use := range uses {
		var reg *codec.Registered
		if reg, err = r.keep(sr.SubjectSchema{Subject: use.Subject, Version: use.Version, ID: int(id), Schema: text}); err == nil {
			return reg, nil
		}
	}
	return nil, fmt.Errorf("schema with id %d: %w", id, err)
}

// ByFingerprint implements codec.Reader. A registry does not know fingerprints: all subjects are
// read for one that is not remembered.
func (r *RegistryReader) ByFingerprint(ctx context.Context, fingerprint codec.Fingerprint) (*codec.Registered, error) {
	has := func(reg *codec.Registered) bool { return reg.Schema.Fingerprint() == fingerprint }
	if reg := r.find(has, 0); reg != nil {
		return reg, nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	if err := r.readAll(ctx); err != nil {
		return nil, err
	}
	if reg := r.find(has, 0); reg != nil {
		return reg, nil
	}
	return nil, fmt.Errorf("%w: fingerprint %s", codec.ErrUnknownSchema, fingerprint)
}

func (r *RegistryReader) readAll(ctx context.Context) error {
	subjects, err := r.client.Subjects(ctx)
	if err != nil {
		return lookUpFailed("any subject", err)
	}
	for _, subject := range subjects {
		schemas, err := r.client.Schemas(ctx, subject)
		if err != nil {
			return lookUpFailed("subject "+subject, err)
		}
		for _, s := range schemas {
			_, _ = r.keep(s) // one of another kind of user is left out
		}
	}
	return nil
}

// Latest implements codec.Reader. A new version is seen after half a minute.
func (r *RegistryReader) Latest(ctx context.Context, typ string) (*codec.Registered, error) {
	r.mu.Lock()
	held := r.latest[typ]
	r.mu.Unlock()
	if held.reg != nil && r.now().Before(held.until) {
		return held.reg, nil
	}
	const latest = -1
	reg, err := r.subject(ctx, typ, latest)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.latest) < registeredMax {
		r.latest[typ] = latestOf{reg, r.now().Add(latestLife)}
	}
	return reg, nil
}

// Version implements codec.Reader.
func (r *RegistryReader) Version(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	if version < 1 {
		return nil, fmt.Errorf("%w: type %s version %d", codec.ErrUnknownSchema, typ, version)
	}
	if reg := r.find(func(reg *codec.Registered) bool { return reg.Type == typ && reg.Version == version }, 0); reg != nil {
		return reg, nil
	}
	return r.subject(ctx, typ, version)
}

func (r *RegistryReader) subject(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	s, err := r.client.SchemaByVersion(ctx, typ, version)
	if err != nil {
		return nil, lookUpFailed("type "+typ, err)
	}
	return r.keep(s)
}

// find looks at what is remembered; by id where one is given.
func (r *RegistryReader) find(is func(*codec.Registered) bool, id int32) *codec.Registered {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != 0 {
		return r.byID[id]
	}
	for _, reg := range r.byID {
		if is(reg) {
			return reg
		}
	}
	return nil
}

func (r *RegistryReader) keep(s sr.SubjectSchema) (*codec.Registered, error) {
	reg, err := registered(s)
	if err != nil {
		return nil, fmt.Errorf("%w for Foldstream: subject %s version %d: %w", codec.ErrUnknownSchema, s.Subject, s.Version, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held := r.byID[reg.ID]; held != nil && held.Type == reg.Type && held.Version == reg.Version {
		return held, nil
	}
	if len(r.byID) < registeredMax {
		r.byID[reg.ID] = reg
	}
	return reg, nil
}

func registered(s sr.SubjectSchema) (*codec.Registered, error) {
	if s.Type != sr.TypeAvro || len(s.References) > 0 {
		return nil, errors.New("want Avro without references")
	}
	return describe(int32(s.ID), s.Version, s.Schema.Schema, event.KindEvent)
}

// describe makes a registration of a schema's text: its type and kind are the properties fs.type
// and fs.kind, else the full name and kind.
func describe(id int32, version int, text string, kind event.Kind) (*codec.Registered, error) {
	schema, err := codec.Parse(text)
	if err != nil {
		return nil, err
	}
	typ := schema.Prop("fs.type")
	if typ == "" {
		typ = schema.Name()
	}
	if said := schema.Prop("fs.kind"); said != "" {
		kind = event.Kind(said)
	}
	if !schema.IsRecord() || !strings.Contains(typ, ".") {
		return nil, fmt.Errorf("%q is no record named <category>.<Name>", typ)
	}
	return &codec.Registered{ID: id, Type: typ, Version: version, Kind: kind, Schema: schema}, nil
}

// lookUpFailed tells "there is none" from a registry that does not answer.
func lookUpFailed(what string, err error) error {
	var response *sr.ResponseError
	if errors.As(err, &response) && response.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w: %s (the registry answers %d: %s)", codec.ErrUnknownSchema, what, response.ErrorCode, response.Message)
	}
	return fmt.Errorf("ask the schema registry for %s: %w", what, err)
}
