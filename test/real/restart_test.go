//go:build unix

package real

import (
	"testing"

	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/testkit"
)

const restartCases = 300 // about 2,900 commands

// TestRestartAnswersAsDuplicates imports a sample, restarts the services in good order, and
// imports it again: nothing is accepted, and no row of any view changes.
func TestRestartAnswersAsDuplicates(t *testing.T) {
	w := newWorld(t, realKafka(t), testkit.Postgreses(t)[0])
	figure("%s: seed %d (%s)", t.Name(), w.seed, envSeed)
	s := w.newSample(restartCases)
	commands, err := s.expect("restart")
	if err != nil {
		t.Fatal(err)
	}
	j := w.follow()

	first, before := w.importOnce(s, j)
	if got := first.Outcomes[importer.OutcomeAccepted]; got != commands {
		t.Errorf("first import: %d accepted, want all %d", got, commands)
	}
	second, after := w.importOnce(s, j)
	if got := second.Outcomes[importer.OutcomeAccepted]; got != 0 {
		t.Errorf("second import: %d accepted, want 0", got)
	}
	if got := second.Outcomes[importer.OutcomeDuplicate]; got != commands {
		t.Errorf("second import: %d duplicate, want all %d", got, commands)
	}
	bytes := 0
	for table, text := range before {
		bytes += len(text)
		if text == "" {
			t.Errorf("table %s is empty after the first import", table)
		}
		if after[table] != text {
			t.Errorf("table %s is not the same after the second import", table)
		}
	}
	log := w.readLog()
	_, f := log.streamFaults()
	w.demand(f, log.acceptedFaults(s.expected))
	w.checkViews(log)
	figure("%s: %d commands; first import %d accepted; after a restart %d accepted, %d duplicate; %d tables of %d bytes the same",
		t.Name(), commands, first.Outcomes[importer.OutcomeAccepted], second.Outcomes[importer.OutcomeAccepted],
		second.Outcomes[importer.OutcomeDuplicate], len(before), bytes)
}

// importOnce starts the services, imports, waits for the views, stops the services, and returns
// the counts and every view's rows.
func (w *world) importOnce(s *sample, j *journal) (importer.Report, map[string]string) {
	w.t.Helper()
	ingest, projector := w.mustStart("ingest"), w.mustStart("projector")
	c, err := w.startImport(s, "restart", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	report, err := importResult(w.ctx, c)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.waitViews(w.ctx, j, projector); err != nil {
		w.t.Fatal(err)
	}
	w.mustStop(ingest, projector)
	return report, w.dump()
}
