//go:build unix

package real

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/testkit"
)

const (
	killsWanted      = 20
	killsCases       = 3200 // about 29,000 commands
	killsRate        = 500  // commands per second
	killsAttemptsMax = 400
	killDelayMax     = 120 * time.Millisecond
)

// TestKillsDuringImport kills ingest and projector by SIGKILL in the middle of their work, each
// killsWanted times, during an import on a real broker. A kill counts only if work was under way:
// commands in the log without a reply in the reply topic after the kill, events in the log beyond
// what Postgres holds after the kill. Then the import must end by itself, and log and views must
// be as if nothing had happened.
func TestKillsDuringImport(t *testing.T) {
	w := newWorld(t, realKafka(t), testkit.Postgreses(t)[0])
	figure("%s: seed %d (%s)", t.Name(), w.seed, envSeed)
	began := time.Now()
	k := &killing{w: w, journal: w.follow(), sample: w.newSample(killsCases)}

	if err := k.all(); err != nil {
		figure("%s: failed after %d imports; ingest %s; projector %s", t.Name(), len(k.reports), &k.ingest, &k.projector)
		t.Fatal(err)
	}
	k.print(time.Since(began))
	for _, victim := range []*victim{&k.ingest, &k.projector} {
		if victim.counted < killsWanted {
			t.Errorf("%s was killed %d times with work under way, want %d", victim.name, victim.counted, killsWanted)
		}
	}

	// The next owner answers from the log what the dead one had appended: by the command's offset,
	// so that it is the same answer, and not a duplicate, to a command that was sent once.
	for i, r := range k.reports {
		if n := r.Outcomes[importer.OutcomeDuplicate] - r.RepeatedDuplicates; n != 0 {
			t.Errorf("import %d: %d commands that were sent once were answered as duplicates, want 0", i+1, n)
		}
	}

	log := w.readLog()
	streams, f := log.streamFaults()
	w.demand(f, log.acceptedFaults(k.sample.expected))
	figure("%s: %d events of %d commands in %d streams, %d claims, %d void records", t.Name(), log.events, len(k.sample.expected), streams, log.claims, log.voids)
	w.checkViews(log)
}

// killing is the test under way.
type killing struct {
	w         *world
	journal   *journal
	sample    *sample
	reports   []importer.Report
	ingest    victim
	projector victim
}

// victim is one service and how often it was killed.
type victim struct {
	name      string
	random    *rand.Rand
	attempted int
	counted   int
	lost      int // commands or events that were under way, in all counted kills

	// progress waits until a new process has done something.
	progress func(ctx context.Context, c *child) error
	// before is taken just before the kill; lostBy, just after it, says how much of what stood
	// before was under way.
	before func(ctx context.Context) (ends, error)
	lostBy func(ctx context.Context, before ends) (int, error)
}

func (v *victim) String() string {
	return fmt.Sprintf("killed %d times, %d of them with work under way (%d in all)", v.attempted, v.counted, v.lost)
}

// all kills during imports, then lets everything end.
func (k *killing) all() error {
	k.ingest = victim{
		name: "ingest", random: k.w.random(1),
		progress: k.ingestProgress, before: k.ends(k.w.commandsTopics()), lostBy: k.unanswered,
	}
	k.projector = victim{
		name: "projector", random: k.w.random(2),
		progress: k.projectorProgress, before: k.ends(k.w.eventsTopics()), lostBy: k.unfolded,
	}
	g, ctx := errgroup.WithContext(k.w.ctx)
	killed := make(chan struct{})
	var services [2]*child
	kills, killCtx := errgroup.WithContext(ctx)
	for i, v := range []*victim{&k.ingest, &k.projector} {
		kills.Go(func() (err error) {
			services[i], err = v.run(killCtx, k.w)
			return err
		})
	}
	g.Go(func() error {
		defer close(killed)
		return kills.Wait()
	})
	g.Go(func() error { return k.imports(ctx, killed) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := k.w.waitViews(k.w.ctx, k.journal, services[1]); err != nil {
		return err
	}
	k.w.mustStop(services[:]...)
	return nil
}

// imports imports the sample, under another name each time, until the kills are done. Each import
// must end by itself.
func (k *killing) imports(ctx context.Context, killed <-chan struct{}) error {
	for n := 1; ; n++ {
		workflow := fmt.Sprintf("kills %d", n)
		if _, err := k.sample.expect(workflow); err != nil {
			return err
		}
		c, err := k.w.startImport(k.sample, workflow, killsRate)
		if err != nil {
			return err
		}
		report, err := importResult(ctx, c)
		if err != nil {
			return err
		}
		k.reports = append(k.reports, report)
		select {
		case <-killed:
			return nil
		default:
		}
	}
}

// run kills the service until enough kills have counted, and leaves one that lives.
func (v *victim) run(ctx context.Context, w *world) (*child, error) {
	for {
		c, err := w.start(v.name)
		if err != nil {
			return nil, err
		}
		if v.counted == killsWanted {
			return c, nil
		}
		if v.attempted == killsAttemptsMax {
			return nil, fmt.Errorf("%s: %s; want %d", v.name, v, killsWanted)
		}
		if err := v.killOnce(ctx, c); err != nil {
			return nil, fmt.Errorf("%s, kill %d: %w", v.name, v.attempted+1, err)
		}
	}
}

func (v *victim) killOnce(ctx context.Context, c *child) error {
	if err := v.progress(ctx, c); err != nil {
		return err
	}
	timer := time.NewTimer(v.delay())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	before, err := v.before(ctx)
	if err != nil {
		return err
	}
	c.kill()
	lost, err := v.lostBy(ctx, before)
	if err != nil {
		return err
	}
	v.attempted++
	if lost > 0 {
		v.counted++
		v.lost += lost
	}
	return nil
}

// delay is random, and short every other time: then the kill comes while the process still works
// off what waited for it.
func (v *victim) delay() time.Duration {
	longest := int64(killDelayMax)
	if v.random.IntN(2) == 0 {
		longest /= 10
	}
	return time.Duration(v.random.Int64N(longest))
}

func (k *killing) ends(names []string) func(context.Context) (ends, error) {
	return func(ctx context.Context) (ends, error) { return k.w.endsOf(ctx, names...) }
}

// ingestProgress waits for the first reply of a new process.
func (k *killing) ingestProgress(ctx context.Context, c *child) error {
	base := k.journal.repliesSeen()
	return k.journal.until(ctx, c, func() bool { return k.journal.replies > base })
}

// unanswered counts the commands before these positions without a reply: nobody is there to
// write another one.
func (k *killing) unanswered(ctx context.Context, before ends) (int, error) {
	replies, err := k.w.endsOf(ctx, k.w.repliesTopic())
	if err != nil {
		return 0, err
	}
	for p, end := range before {
		replies[p] = end
	}
	if err := k.journal.reach(ctx, replies); err != nil {
		return 0, err
	}
	return k.journal.unanswered(before), nil
}

// projectorProgress waits until a new process has moved a view's offset.
func (k *killing) projectorProgress(ctx context.Context, c *child) error {
	base, err := k.folded(ctx)
	if err != nil {
		return err
	}
	return k.w.untilPostgres(ctx, c, func(ctx context.Context) (bool, error) {
		now, err := k.folded(ctx)
		return now > base, err
	})
}

// folded is the sum of all views' offsets.
func (k *killing) folded(ctx context.Context) (int64, error) {
	offsets, err := k.w.viewOffsets(ctx)
	var sum int64
	for _, next := range offsets {
		sum += next
	}
	return sum, err
}

// unfolded counts the events before these positions that some view has not folded, once Postgres
// has ended the dead process's sessions: a COMMIT that had arrived is done by then.
func (k *killing) unfolded(ctx context.Context, before ends) (int, error) {
	if err := k.journal.reach(ctx, before); err != nil {
		return 0, err
	}
	err := k.w.untilPostgres(ctx, nil, func(ctx context.Context) (bool, error) {
		var sessions int
		err := k.w.pool.QueryRow(ctx, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'foldstream'").Scan(&sessions)
		return sessions == 0, err
	})
	if err != nil {
		return 0, fmt.Errorf("wait for the end of the dead process's sessions: %w", err)
	}
	return k.w.behind(ctx, k.journal, before)
}

func (k *killing) print(took time.Duration) {
	name := k.w.t.Name()
	figure("%s: ingest %s", name, &k.ingest)
	figure("%s: projector %s", name, &k.projector)
	for i, r := range k.reports {
		figure("%s: import %d: %d commands, %d accepted, %d duplicate (%d of them sent again), %d sendings repeated",
			name, i+1, r.Commands, r.Outcomes[importer.OutcomeAccepted], r.Outcomes[importer.OutcomeDuplicate], r.RepeatedDuplicates, r.SentAgain)
	}
	figure("%s: kills and imports took %s", name, took.Round(100*time.Millisecond))
}
