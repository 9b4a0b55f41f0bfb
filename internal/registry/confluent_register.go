package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/twmb/franz-go/pkg/sr"
)

// Register implements Registry. All submissions are checked here first, against every version
// that the registry has; only then are they sent, one by one, so that an error of the transport
// may leave some registered: registering again settles it. Ids are the registry's own.
func (c *Confluent) Register(ctx context.Context, submissions []Submission) ([]*codec.Registered, error) {
	candidates, err := parse(submissions)
	if err != nil {
		return nil, err
	}
	if candidates, err = withKinds(candidates); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RegisterTimeout)
	defer cancel()
	c.registering.Lock()
	defer c.registering.Unlock()
	for _, candidate := range candidates {
		if err := c.scanSubject(ctx, candidate.schema.Name()); err != nil {
			return nil, fmt.Errorf("register schemas: %w", err)
		}
	}
	c.mu.RLock()
	p, err := makePlan(c.index, candidates, c.cfg.Compatibility)
	c.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	return c.carryOut(ctx, p)
}

// withKinds writes each kind into its text, since the registry keeps nothing else.
func withKinds(candidates []candidate) ([]candidate, error) {
	var faults []error
	for i, c := range candidates {
		text, err := withKind(c.Text, c.schema, c.Kind)
		if err == nil && text != c.Text {
			c.Text = text
			c.schema, err = codec.Parse(text)
		}
		if err != nil {
			faults = append(faults, refusal(c.Submission, err))
		}
		candidates[i] = c
	}
	return candidates, errors.Join(faults...)
}

func (c *Confluent) carryOut(ctx context.Context, p plan) ([]*codec.Registered, error) {
	stored := make(map[*codec.Registered]*codec.Registered, len(p.added))
	for _, planned := range p.added {
		reg, err := c.create(ctx, planned)
		if err != nil {
			return nil, fmt.Errorf("register %s version %d: %w", planned.Type, planned.Version, err)
		}
		stored[planned] = reg
	}
	for i, reg := range p.results {
		if s, there := stored[reg]; there {
			p.results[i] = s
		}
	}
	return p.results, nil
}

// create stores one version. The registry numbers versions itself, so the number is compared.
func (c *Confluent) create(ctx context.Context, planned *codec.Registered) (*codec.Registered, error) {
	subject := planned.Schema.Name()
	// Clients look schemas up by text, some registries compare bytes, and clients send a file's text
	// without the line break at its end.
	text := strings.TrimSpace(planned.Schema.Text())
	s, err := c.client.CreateSchema(ctx, subject, sr.Schema{Schema: text, Type: sr.TypeAvro})
	if err != nil {
		return nil, theirRefusal(planned, err)
	}
	if s.Version != planned.Version {
		return nil, fmt.Errorf("the registry stored it as version %d with id %d: somebody else registers this subject, or versions of it were deleted; compare the registry's versions of %q with the project's files",
			s.Version, s.ID, subject)
	}
	s.Subject = subject
	s.Schema.Schema = text
	s.Schema.Type = sr.TypeAvro
	reg, err := c.read(s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	delete(c.latest, reg.Type)
	c.mu.Unlock()
	return c.remember(reg)
}

// theirRefusal turns the registry's own "incompatible" into ours.
func theirRefusal(planned *codec.Registered, err error) error {
	var response *sr.ResponseError
	if !errors.As(err, &response) {
		return err
	}
	switch response.StatusCode {
	case http.StatusConflict:
		return refused{&codec.CompatibilityError{
			Type: planned.Type, Version: planned.Version, Against: planned.Version - 1,
			Faults: []string{"the registry refuses it: " + clip(response.Message)},
		}}
	case http.StatusUnprocessableEntity:
		return refused{fmt.Errorf("the registry refuses it: %w", err)}
	}
	return err
}
