package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
)

// verdict answers whether a schema could follow what is registered.
type verdict struct {
	Compatible bool     `json:"is_compatible"`
	Messages   []string `json:"messages,omitempty"`
}

// compatibleWithAll checks against the versions that the policy holds a new one to. A subject
// that is not there takes every schema.
func (s *server) compatibleWithAll(ctx context.Context, c *call) (any, error) {
	in, err := readCandidate(c)
	if err != nil {
		return nil, err
	}
	regs, err := s.all(ctx, c)
	if err != nil && !isMissing(err) {
		return nil, err
	}
	return s.judge(c, in, s.policy.Held(regs)), nil
}

// compatibleWithOne checks against one version.
func (s *server) compatibleWithOne(ctx context.Context, c *call) (any, error) {
	number, err := versionOf(c.params["version"])
	if err != nil {
		return nil, err
	}
	in, err := readCandidate(c)
	if err != nil {
		return nil, err
	}
	reg, err := s.one(ctx, c)
	switch {
	case isMissing(err) && number == versionLatest:
		return s.judge(c, in, nil), nil
	case err != nil:
		return nil, err
	case s.policy == registry.None:
		return s.judge(c, in, nil), nil
	}
	return s.judge(c, in, []*codec.Registered{reg}), nil
}

// readCandidate reads a schema that is fit to be registered under the call's subject.
func readCandidate(c *call) (*submitted, error) {
	in, err := readSchema(c)
	if err != nil {
		return nil, err
	}
	typ, _ := registry.Describe(in.parsed, "")
	if err := checkSubject(c, in.parsed, typ); err != nil {
		return nil, err
	}
	if faults := codec.Lint(in.parsed); len(faults) > 0 {
		return nil, unprocessable(codeInvalidSchema, "%v", &registry.LintError{Type: typ, Faults: faults})
	}
	return in, nil
}

func isMissing(err error) bool {
	var answered *fault
	return errors.As(err, &answered) && answered.Status == http.StatusNotFound
}

// verdictMessagesMax bounds what a verdict tells.
const verdictMessagesMax = 100

func (s *server) judge(c *call, in *submitted, against []*codec.Registered) verdict {
	var messages []string
	for _, reg := range against {
		for _, f := range codec.CheckCompatible(in.parsed, reg.Schema) {
			messages = append(messages, fmt.Sprintf("cannot read what version %d wrote: %s", reg.Version, f))
		}
	}
	v := verdict{Compatible: len(messages) == 0}
	if c.flag("verbose") {
		v.Messages = messages[:min(len(messages), verdictMessagesMax)]
	}
	return v
}
