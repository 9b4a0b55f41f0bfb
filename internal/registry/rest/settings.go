package rest

import (
	"context"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/internal/registry"
)

// The policy and the mode are the project's and the operator's: they are answered, for every
// subject the same, and not changed here.

var levels = []string{"NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"}

func (s *server) config(_ context.Context, c *call) (any, error) {
	if err := checkSettingSubject(c); err != nil {
		return nil, err
	}
	return struct {
		Level registry.Compatibility `json:"compatibilityLevel"`
	}{s.policy}, nil
}

// putConfig takes the level that is in force, for clients that set what they expect.
func (s *server) putConfig(_ context.Context, c *call) (any, error) {
	var in struct {
		Level string `json:"compatibility"`
	}
	if err := readJSON(c, &in); err != nil {
		return nil, err
	}
	level := strings.ToUpper(in.Level)
	switch {
	case !slices.Contains(levels, level):
		return nil, unprocessable(codeInvalidLevel, "Invalid compatibility level %q: valid values are %s", clip(in.Level), strings.Join(levels, ", "))
	case s.readOnly || level != string(s.policy):
		return nil, unprocessable(codeNotPermitted, "Operation not permitted: the compatibility level is %s for every subject; it is set by `compatibility` in the project's foldstream.yaml", s.policy)
	}
	if err := checkSettingSubject(c); err != nil {
		return nil, err
	}
	return struct {
		Level string `json:"compatibility"`
	}{level}, nil
}

const (
	modeReadOnly  = "READONLY"
	modeReadWrite = "READWRITE"
)

var modes = []string{modeReadWrite, modeReadOnly, "READONLY_OVERRIDE", "IMPORT", "FORWARD"}

func (s *server) modeNow() string {
	if s.readOnly {
		return modeReadOnly
	}
	return modeReadWrite
}

type modeBody struct {
	Mode string `json:"mode"`
}

func (s *server) mode(_ context.Context, c *call) (any, error) {
	if err := checkSettingSubject(c); err != nil {
		return nil, err
	}
	return modeBody{s.modeNow()}, nil
}

func (s *server) putMode(_ context.Context, c *call) (any, error) {
	var in modeBody
	if err := readJSON(c, &in); err != nil {
		return nil, err
	}
	asked := strings.ToUpper(in.Mode)
	switch {
	case !slices.Contains(modes, asked):
		return nil, unprocessable(codeInvalidMode, "Invalid mode %q: valid values are %s", clip(in.Mode), strings.Join(modes, ", "))
	case s.readOnly || asked != s.modeNow():
		return nil, unprocessable(codeNotPermitted, "Operation not permitted: the mode is %s for every subject; it is set by who runs this service", s.modeNow())
	}
	if err := checkSettingSubject(c); err != nil {
		return nil, err
	}
	return modeBody{asked}, nil
}

func checkSettingSubject(c *call) error {
	subject := c.params["subject"]
	if err := registry.CheckSubject(subject); err != nil {
		return notFound(codeSubjectNotFound, "Subject not found: %v", err)
	}
	return nil
}

func (s *server) refuseSetting(_ context.Context, _ *call) (any, error) {
	return nil, unprocessable(codeNotPermitted, "Operation not permitted: level %s and mode %s are in force for every subject, and there is nothing to delete", s.policy, s.modeNow())
}
