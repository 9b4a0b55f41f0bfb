//go:build unix

package real

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/processlog"
)

// sample is a generated process log, in a file, and the commands that it stands for.
type sample struct {
	file     string
	csv      []byte
	expected map[string]processlog.Command // what must be accepted, by command id
}

// newSample writes a process log. The same seed gives the same bytes.
func (w *world) newSample(cases int) *sample {
	w.t.Helper()
	s := &sample{file: filepath.Join(w.dir, "sample.csv"), csv: processlog.Sample(w.seed, cases), expected: map[string]processlog.Command{}}
	if err := os.WriteFile(s.file, s.csv, 0o600); err != nil {
		w.t.Fatalf("write the sample: %v", err)
	}
	return s
}

// parsed returns the commands of the sample under a workflow's name.
func (s *sample) parsed(workflow string) (*processlog.Log, error) {
	return processlog.Read(bytes.NewReader(s.csv), processlog.Options{Workflow: workflow})
}

// expect adds an import's commands to those that must be accepted.
func (s *sample) expect(workflow string) (int, error) {
	log, err := s.parsed(workflow)
	if err != nil {
		return 0, fmt.Errorf("read the sample: %w", err)
	}
	for c := range log.Commands() {
		if _, twice := s.expected[c.ID]; twice {
			return 0, fmt.Errorf("command id %s stands twice in the sample", c.ID)
		}
		s.expected[c.ID] = c
	}
	return log.CommandCount(), nil
}

// startImport starts `foldstream import process-log` on the sample; rate 0 is as fast as it goes.
func (w *world) startImport(s *sample, workflow string, rate int) (*child, error) {
	return w.start("import", "process-log", s.file, "--workflow", workflow, "--output", "json",
		"--rate", strconv.Itoa(rate), "--in-flight", "8192")
}

// importResult waits for an import's end, which must be a good one, and reads its counts.
func importResult(ctx context.Context, c *child) (importer.Report, error) {
	if err := c.succeed(ctx); err != nil {
		return importer.Report{}, err
	}
	text, err := os.ReadFile(c.stdout)
	if err != nil {
		return importer.Report{}, err
	}
	var printed struct {
		Commands importer.Report `json:"commands"`
	}
	if err := json.Unmarshal(text, &printed); err != nil {
		return importer.Report{}, fmt.Errorf("%s printed something else than its counts: %w\n%s", c.name, err, text)
	}
	return printed.Commands, nil
}
