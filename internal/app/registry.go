package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/sr"
)

// Registry connects to the schemas: a Confluent-compatible registry where the configuration
// names one, else the topic <ns>.schemas. The caller closes it.
func (e *Environment) Registry() (registry.Registry, error) {
	if e.Config.Registry.URL != "" {
		return e.confluentRegistry()
	}
	opts, err := e.Kafka()
	if err != nil {
		return nil, err
	}
	return registry.NewTopic(registry.TopicConfig{
		Opts: opts, Namespace: e.Project.Namespace, Logger: e.Logger,
		Compatibility: registry.Compatibility(e.Project.Compatibility),
	})
}

// RegisterSchemas stores what is not there yet, and returns the registrations of all schemas of
// the project, in its order.
func (e *Environment) RegisterSchemas(ctx context.Context, in registry.Registry) ([]*codec.Registered, error) {
	return in.Register(ctx, submissions(e.Project.Schemas))
}

func submissions(files []project.SchemaFile) []registry.Submission {
	all := make([]registry.Submission, 0, len(files))
	for _, f := range files {
		all = append(all, registry.Submission{Type: f.Type, Version: f.Version, Kind: f.Kind, Text: f.Text})
	}
	return all
}

// checkSchemas fails when a schema of the project is not registered, or is with another text.
func (e *Environment) checkSchemas(ctx context.Context, in registry.Registry) error {
	var missing []string
	var faults []error
	for _, f := range e.Project.Schemas {
		have, err := in.Version(ctx, f.Type, f.Version)
		switch {
		case errors.Is(err, codec.ErrUnknownSchema):
			missing = append(missing, fmt.Sprintf("%s v%d", f.Type, f.Version))
		case err != nil:
			return fmt.Errorf("look up version %d of %s: %w", f.Version, f.Type, err)
		default:
			faults = append(faults, sameSchema(f, have))
		}
	}
	if len(missing) > 0 {
		faults = append(faults, service.Exitf(service.ExitNotFound, "schemas are not registered: %s: register them by %s",
			strings.Join(missing, ", "), e.Program.hint("schema register")))
	}
	return errors.Join(faults...)
}

// sameSchema holds a file against its registration. The parsing form decides: documentation may
// differ.
func sameSchema(f project.SchemaFile, have *codec.Registered) error {
	if have.Schema.Canonical() != f.Schema.Canonical() {
		return service.Exitf(service.ExitConflict, "%s: version %d of %s is registered with another text: a registered version never changes; restore the file and write v%d",
			f.Path, f.Version, f.Type, f.Version+1)
	}
	if have.Kind != "" && have.Kind != f.Kind {
		return service.Exitf(service.ExitConflict, "%s: %s is registered as %s, here it is %s: a type's kind never changes; name a new type",
			f.Path, f.Type, have.Kind, f.Kind)
	}
	return nil
}

// confluentRegistry connects to a registry over HTTP. Schemas there without a kind of their own
// have the one that the project gives their type.
func (e *Environment) confluentRegistry() (registry.Registry, error) {
	cfg := e.Config.Registry
	opts := []sr.ClientOpt{sr.URLs(cfg.URL), sr.UserAgent("foldstream/" + service.Version())}
	if cfg.Username != "" {
		password, err := cfg.Secret()
		if err != nil {
			return nil, err
		}
		opts = append(opts, sr.BasicAuth(cfg.Username, password))
	}
	kinds := map[string]event.Kind{}
	for _, s := range e.Project.Schemas {
		kinds[s.Type] = s.Kind
	}
	return registry.NewConfluent(registry.ConfluentConfig{
		Opts: opts, Compatibility: registry.Compatibility(e.Project.Compatibility), Logger: e.Logger,
		RequestTimeout: cfg.Timeout,
		DefaultKind:    func(typ string) event.Kind { return kinds[typ] },
	})
}
