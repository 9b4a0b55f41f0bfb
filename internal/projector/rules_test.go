package projector

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/twmb/franz-go/pkg/kgo"
)

func wantLines(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got  %q\n want %q", what, got, want)
	}
}

func wantStop(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil || deadletter.FateOf(err).Verdict != deadletter.Stop {
		t.Fatalf("got error %v, want one that stops the partition", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
}

func TestP1ALostCompareAndSetWritesNothing(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1))
		old := d.w
		d.w = d.hire()
		records := []any{d.noted("a", "two", 2), d.noted("b", "error", 1)}
		err := old.apply(recs(records...))
		if !errors.Is(err, errFenced) {
			t.Fatalf("got %v, want %v", err, errFenced)
		}
		d.want("a", "text", "one")
		wantLines(t, "letters of a fenced worker", d.letterLines())
		if len(d.sink.letters) > 0 {
			t.Errorf("a fenced worker wrote %d letters", len(d.sink.letters))
		}
		d.apply(recs(records...)...)
		d.want("a", "text", "two")
	})
}

func TestP1AWorkerThatIsBehindTheOffsetRowIsFencedToo(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeStats())
		first := d.noted("a", "one", 1)
		d.apply(first)
		before := d.w.at
		before.next = positionStart
		d.w.at = before // as if it had forgotten its commit
		if err := d.w.apply(recs(first)); !errors.Is(err, errFenced) {
			t.Fatalf("got %v, want %v", err, errFenced)
		}
		d.want("one", "count", "1")
	})
}

func TestP1AFencedWorkerDropsItsRowsAndTells(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1))
		old := d.w
		d.w = d.hire()
		old.offer(deskTopicID, 9, recs(d.noted("a", "two", 2)))
		old.run()
		if len(d.fenced) != 1 || !errors.Is(d.fenced[0], errFenced) {
			t.Errorf("fencing was told as %v, want once", d.fenced)
		}
		if _, kept := old.cache.get("a"); kept {
			t.Error("a fenced worker kept its rows")
		}
		if err := old.status.stop(); err != nil {
			t.Errorf("a fenced partition counts as stopped: %v", err)
		}
	})
}

func TestP1AnUnknownCommitIsDecidedByTheOffsetRow(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for name, breaks := range map[string]func(*flakyDatabase){
			"stored":     func(f *flakyDatabase) { f.breakCommit = true },
			"not stored": func(f *flakyDatabase) { f.breakRollback = true },
		} {
			t.Run(name, func(t *testing.T) {
				d := newDesk(t, pg, probeStats())
				breaks(d.db)
				d.apply(d.noted("a", "one", 5))
				d.apply(d.noted("a", "one", 6))
				d.want("one", "n", "11")
				d.want("one", "count", "2")
			})
		}
	})
}

func TestP1AnUnknownCommitOfAFencedWorkerIsNotTakenOver(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeStats())
		d.db.breakRollback = true
		d.db.onBreak = func() { d.hire() }
		if err := d.w.apply(recs(d.noted("a", "one", 5))); !errors.Is(err, errFenced) {
			t.Errorf("got %v, want %v", err, errFenced)
		}
		d.want("one", "n", "")
	})
}

func TestP1ParkedKeysAreReadWithTheBatch(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1), d.noted("b", "one", 1))
		d.apply(d.noted("a", "error", 1))
		// A redrive applies the letter, advances the row, and unparks, behind the worker's back.
		for _, sql := range []string{
			`update fs_probe_list_v1.rows set text = 'redriven', version = 2 where id = 'a'`,
			`delete from fs.letters`, `delete from fs.parked`,
		} {
			if _, err := d.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		d.apply(d.noted("a", "three", 3))
		d.want("a", "text", "three")
		d.want("a", "version", "3")
		d.want("a", "tags", "[one three]")
		// And an operator parks a key that the worker knows as open.
		if _, err := d.pool.Exec(t.Context(), `insert into fs.parked values ($1, $2, 0, 'b', 1)`, d.w.store.consumer, deskTopic); err != nil {
			t.Fatal(err)
		}
		d.letter("b", 1)
		d.apply(d.noted("b", "two", 2))
		d.want("b", "text", "one")
		wantLines(t, "letters", d.letterLines(), "1 failed handle asked", "4 blocked-by-key handle blocked-by-key")
	})
}

// letter puts a letter's row there, as an operator's tool may.
func (d *desk) letter(key string, offset int64) {
	d.t.Helper()
	_, err := d.pool.Exec(d.t.Context(), `insert into fs.letters (consumer, topic_id, partition, "offset", topic, id, key, header_names, header_values,
		event_type, stage, class, message, reason, fingerprint, attempts, first_at, letter_partition, letter_offset)
		values ($1, $2, 0, $3, $4, gen_random_uuid(), $5, '{}', '{}', 'probe.Noted', 'handle', 'asked', '', 'failed', '', 1, now(), 0, 0)`,
		d.w.store.consumer, event.FormatTopicID(deskTopicID), offset, deskTopic, []byte(key))
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestP3AStreamGoesOnOnceItsLettersAreGone(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeStats())
		d.apply(d.noted("a", "one", 1), d.noted("b", "one", 1), d.noted("a", "error", 1), d.noted("b", "error", 1))
		wantLines(t, "parked", d.parkedLines(), "a 2", "b 3")
		// The letter of a is resolved: a redrive has applied it.
		for _, sql := range []string{`update fs_probe_stats_v1.stream_versions set version = 2 where stream = 'a'`, `delete from fs.letters where key = 'a'`} {
			if _, err := d.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		d.apply(d.noted("a", "three", 1), d.noted("b", "three", 1))
		wantLines(t, "parked", d.parkedLines(), "b 3")
		wantLines(t, "letters", d.letterLines(), "3 failed handle handler", "5 blocked-by-key handle blocked-by-key")
		d.want("three", "count", "1")
	})
}

func TestP3AVoidLetterKeepsNoStreamParked(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeStats())
		d.apply(d.noted("a", "one", 1), d.noted("a", "error", 1))
		if _, err := d.pool.Exec(t.Context(), `update fs.letters set reason = 'void'`); err != nil {
			t.Fatal(err)
		}
		if _, err := d.pool.Exec(t.Context(), `update fs_probe_stats_v1.stream_versions set version = 2 where stream = 'a'`); err != nil {
			t.Fatal(err)
		}
		d.apply(d.noted("a", "three", 1))
		wantLines(t, "parked", d.parkedLines())
		d.want("three", "count", "1")
	})
}

func TestP2EveryEventAdvancesTheVersion(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		t.Run("entity", func(t *testing.T) {
			d := newDesk(t, pg, probeList())
			version := func(id string) int64 {
				return scan[int64](t, d.pool, `select version from fs_probe_list_v1.rows where id = $1`, id)
			}
			d.apply(d.ignored("early"), d.noted("a", "one", 1), d.ignored("a"), d.noted("gone", "one", 1), d.erased("gone"))
			for id, want := range map[string]int64{"early": 1, "a": 2, "gone": 2} {
				if got := version(id); got != want {
					t.Errorf("version of %s: got %d, want %d", id, got, want)
				}
			}
			if got := lines(t, d.pool, `select id from fs.probe_list`); !slices.Equal(got, []string{"a"}) {
				t.Errorf("the stable view shows %v, want [a]: what is not there yet or deleted is no row", got)
			}
			d.w = d.hire() // from Postgres, not from memory
			d.apply(d.noted("gone", "again", 4), d.noted("early", "now", 3))
			d.want("gone", "total", "4") // the row began anew
			d.want("gone", "seen", "false")
			d.want("early", "version", "2")
		})
		t.Run("metric", func(t *testing.T) {
			d := newDesk(t, pg, probeStats())
			d.apply(d.ignored("a"), d.noted("a", "one", 1), d.ignored("a"))
			if got := scan[int64](t, d.pool, `select version from fs_probe_stats_v1.stream_versions where category = 'probe' and stream = 'a'`); got != 3 {
				t.Errorf("version: got %d, want 3", got)
			}
			d.w = d.hire()
			d.apply(d.noted("a", "one", 1))
			d.want("one", "count", "2")
		})
		t.Run("append", func(t *testing.T) {
			d := newDesk(t, pg, probeTrail())
			d.apply(d.ignored("a"), d.noted("a", "one", 1), d.ignored("a"), d.ignored("b"))
			wantLines(t, "versions", lines(t, d.pool, `select format('%s %s', stream, version) from fs_probe_trail_v1.stream_versions where category = 'probe' order by 1`), "a 3", "b 1")
			d.w = d.hire()
			d.apply(d.noted("a", "two", 2))
			wantLines(t, "rows", d.trail(), "a@2.1 one", "a@4.1 two", "a@4.2 even")
		})
	})
}

func TestALowerVersionIsSkipped(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			d.apply(d.noted("a", "one", 1), d.noted("a", "one", 1))
			d.last["a"] = 0
			d.apply(d.noted("a", "one", 1), d.noted("a", "one", 1), d.noted("a", "one", 5))
			switch view.Kind {
			case projection.KindEntity:
				d.want("a", "total", "7")
			case projection.KindAppend:
				wantLines(t, "rows", d.trail(), "a@1.1 one", "a@2.1 one", "a@3.1 one")
			default:
				d.want("one", "n", "7")
			}
			wantLines(t, "letters", d.letterLines())
		}
	})
}

func TestAGapStopsThePartitionAfterWhatLiesBefore(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			batch := recs(d.noted("a", "one", 1), d.noted("b", "one", 1))
			d.last["a"] = 4
			batch = append(batch, d.noted("a", "one", 1), d.noted("b", "one", 1))
			err := d.w.apply(batch)
			wantStop(t, err, "probe/a", "have version 5", "want 2", "offset 2")
			if got := d.nextOffset(); got != 2 {
				t.Errorf("offset row: got %d, want 2: what lies before the gap counts", got)
			}
			wantLines(t, "letters", d.letterLines())
		}
	})
}

func TestP3ALetterCountsWithTheOffsetOnly(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.db.breakRollback = true
		d.sink.fail = 1
		bad := d.noted("a", "error", 1)
		bad.Headers = append(bad.Headers, event.Header{Key: "x\x00y", Value: []byte{0xff, 0}})
		d.apply(d.noted("b", "one", 1), bad)
		wantLines(t, "letters", d.letterLines(), "0 failed handle handler")
		wantLines(t, "parked", d.parkedLines(), "a 0")
		if got := len(d.sink.letters); got != 1 {
			t.Errorf("the letter was written %d times, want once, though the transaction was tried three times", got)
		}
		row := lines(t, d.pool, `select format('%s|%s|%s|%s|%s', encode(key, 'escape'), encode(value, 'hex') = $1, encode(header_names[6], 'hex'), encode(header_values[6], 'hex'), stream_version) from fs.letters`, hexOf(bad.Value))
		wantLines(t, "the letter's bytes", row, "a|t|780079|ff00|1")
	})
}

func TestP3LaterRecordsOfAParkedKeyFollowAndNeighboursGoOn(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			d.apply(d.noted("a", "one", 1), d.noted("b", "one", 1), d.noted("a", "error", 1), d.noted("b", "two", 2), d.noted("a", "two", 2))
			d.w = d.hire()
			d.apply(d.noted("a", "three", 1), d.noted("b", "three", 3))
			wantLines(t, "letters", d.letterLines(), "2 failed handle handler", "4 blocked-by-key handle blocked-by-key", "5 blocked-by-key handle blocked-by-key")
			wantLines(t, "parked", d.parkedLines(), "a 2")
			switch view.Kind {
			case projection.KindEntity:
				d.want("a", "version", "1")
				d.want("a", "doc", `{"one": "1"}`)
				d.want("b", "total", "6")
			case projection.KindAppend:
				wantLines(t, "rows", d.trail(), "a@1.1 one", "b@1.1 one", "b@2.1 two", "b@2.2 even", "b@3.1 three")
			default:
				d.want("all", "count", "4")
			}
		}
	})
}

func TestP4AnEntityRowIsFedByOneStream(t *testing.T) {
	v := projection.Entity(projection.EntitySpec[probeRow]{
		Name: "two", Version: 1, On: []codec.TypeDef{projection.On[noted]("probe.Noted", 1), projection.On[erased]("other.Erased", 1)},
		Fold: func(r probeRow, _ bool, _ projection.Event) (probeRow, projection.Change, error) {
			return r, projection.Set, nil
		},
	})
	if err := v.Validate(); err == nil || !strings.Contains(err.Error(), "one stream") {
		t.Errorf("an entity view over two categories: got %v, want a fault", err)
	}
}

func TestP4RowsAreReadAnewAtEachAssignment(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1))

		d.w = d.hire() // another process has the partition
		d.apply(d.noted("a", "two", 2))

		d.w = d.hire() // and this one has it again
		d.apply(d.noted("a", "three", 3))
		d.want("a", "total", "6")
		d.want("a", "tags", "[one two three]")
	})
}

func TestW6VoidRecordsAreLetteredOnceAndParkNothing(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range probeViews() {
			d := newDesk(t, pg, view)
			d.claim = event.Claim{ProducerID: 7, Epoch: 1}
			batch := recs(d.control(event.ControlClaim), d.noted("a", "one", 1))
			d.claim.Epoch = 2
			batch = append(batch, d.control(event.ControlClaim))
			d.claim.Epoch = 1 // the owner of old
			batch = append(batch, d.noted("a", "void", 100), d.control(event.ControlKeepalive))
			d.last["a"]-- // what counts comes from the new owner
			d.claim.Epoch = 2
			batch = append(batch, d.noted("a", "two", 2), d.control(event.ControlFence))
			d.apply(batch...)
			wantLines(t, "letters", d.letterLines(), "3 void decode void")
			wantLines(t, "parked", d.parkedLines())
			switch view.Kind {
			case projection.KindEntity:
				d.want("a", "total", "3")
			case projection.KindAppend:
				wantLines(t, "rows", d.trail(), "a@1.1 one", "a@2.1 two", "a@2.2 even")
			default:
				d.want("void", "n", "")
				d.want("all", "count", "2")
			}
		}
	})
}

func TestP4AppendedRowsAreWrittenOnce(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeTrail())
		first, second := d.noted("a", "one", 1), d.noted("a", "two", 2)
		d.db.breakCommit = true // stored, but its answer is lost
		d.apply(first)
		d.db.breakRollback = true
		d.apply(second)
		d.w = d.hire()
		d.apply(first, second, d.noted("a", "three", 3)) // fetched again
		wantLines(t, "rows", d.trail(), "a@1.1 one", "a@2.1 two", "a@2.2 even", "a@3.1 three")
	})
}

func TestW6TheClaimIsKeptBesideTheOffset(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.claim = event.Claim{ProducerID: 7, Epoch: 2}
		d.apply(d.control(event.ControlClaim), d.noted("a", "one", 1))
		d.w = d.hire()
		d.claim.Epoch = 1 // first after the restart: taken for the owner, were the claim not kept
		d.apply(d.noted("a", "void", 100))
		d.last["a"]--
		d.claim.Epoch = 2
		d.apply(d.noted("a", "two", 2))
		d.want("a", "total", "3")
		wantLines(t, "letters", d.letterLines(), "2 void decode void")
	})
}

func TestW6AReaderThatStartsInTheMiddleTakesTheFirstPair(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.offset = 50
		d.claim = event.Claim{ProducerID: 9, Epoch: 4}
		d.apply(d.noted("a", "one", 1))
		d.claim.Epoch = 5 // no claim was seen for it
		d.apply(d.noted("b", "one", 1))
		d.want("a", "total", "1")
		d.want("b", "total", "")
		wantLines(t, "letters", d.letterLines(), "51 void decode void")
	})
}

func TestW9AnotherTopicUnderTheSameNameStops(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		d.apply(d.noted("a", "one", 1))
		d.w = d.hire()
		other := [16]byte{9}
		d.w.status.topicID = event.FormatTopicID(other)
		err := d.w.apply(recs(d.noted("a", "two", 2)))
		wantStop(t, err, event.FormatTopicID(deskTopicID), event.FormatTopicID(other), "made again")
		d.want("a", "total", "1")
	})
}

func TestW9AnotherEventAtTheLastOffsetStops(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		one := d.noted("a", "one", 1)
		d.apply(one)
		t.Run("the same event is passed over", func(t *testing.T) {
			d.w = d.hire()
			d.w.verify = true
			d.apply(one, d.noted("a", "two", 2))
			d.want("a", "total", "3")
		})
		t.Run("another one stops", func(t *testing.T) {
			d.w = d.hire()
			d.w.verify = true
			d.offset--
			err := d.w.apply(recs(d.noted("z", "other", 1), d.noted("a", "three", 3)))
			wantStop(t, err, "z@1", "a@2")
			d.want("a", "total", "3")
		})
	})
}

func TestD9TakingOverBumpsTheEpochAndKeepsThePosition(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		if d.w.epoch != 1 || d.w.at.next != positionStart {
			t.Errorf("first owner: got epoch %d at %d, want 1 at %d", d.w.epoch, d.w.at.next, positionStart)
		}
		d.claim = event.Claim{ProducerID: 1 << 40, Epoch: 32766}
		d.apply(d.control(event.ControlClaim), d.noted("a", "one", 1))
		want := d.w.at
		d.w = d.hire()
		if d.w.epoch != 2 || d.w.at != want {
			t.Errorf("second owner: got epoch %d at %+v, want 2 at %+v", d.w.epoch, d.w.at, want)
		}
	})
}

func TestD9TakingOverWaitsForTheTransactionUnderWay(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeList())
		first := recs(d.noted("a", "one", 1))
		b := newBatch("probe", d.view, d.w.at, first)
		tx, err := d.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.w.store.fence(t.Context(), tx, d.w.place, d.w.epoch, d.w.at.next, b.after); err != nil {
			t.Fatalf("fence: %v", err)
		}
		taken := make(chan *worker, 1)
		go func() { taken <- d.hire() }()
		waitFor(t, "the taker waits for the row", func() bool {
			return scan[int](t, d.pool, `select count(*)::int from pg_stat_activity where wait_event_type = 'Lock' and query like '%offsets%' and datname = current_database()`) == 1
		})
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if next := (<-taken).at.next; next != 1 {
			t.Errorf("the new owner starts at %d, want 1: after what its predecessor committed", next)
		}
	})
}

// On a quiet machine the group assigns partitions before the client's constructor has returned.
func TestAnAssignmentWaitsForItsClient(t *testing.T) {
	t.Parallel()
	s := &session{consumer: &consumer{cfg: &Config{}}, made: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	offsets := map[string]map[int32]kgo.Offset{"fs.order.events": {0: kgo.NewOffset()}}
	if _, err := s.take(ctx, offsets); !errors.Is(err, context.Canceled) {
		t.Errorf("take before the client is there: got %v, want to wait until the context ends", err)
	}
}
