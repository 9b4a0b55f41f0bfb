package projector

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"
)

func probeEvents() projection.View    { return eventsView([]string{"probe"}) }
func probeSnapshots() projection.View { return snapshotsView([]string{"probe"}) }

// indexedLine writes what <ns>.events should hold of a record, from its bytes alone.
func indexedLine(category string, r *kgo.Record) string {
	known := map[string]string{}
	var names, values []string
	for _, h := range r.Headers {
		switch h.Key {
		case "ce_id", "ce_type", "ce_time", "ce_sequence", "ce_correlationid", "ce_causationid", "ce_userid", "fs-command-id":
			known[h.Key] = string(h.Value)
		case "ce_source", "ce_specversion", "ce_subject", "content-type", "traceparent", "fs-command-hash", "fs-command-offset", "fs-decided-offset":
		default:
			names, values = append(names, h.Key), append(values, bytesText(h.Value))
		}
	}
	at, err := time.Parse(time.RFC3339, known["ce_time"])
	if err != nil {
		at = time.Time{}
	}
	return strings.Join([]string{
		category, string(r.Key), known["ce_sequence"], known["ce_id"], known["ce_type"], timeText(at), timeText(r.Timestamp),
		known["ce_correlationid"], known["ce_causationid"], known["ce_userid"], known["fs-command-id"],
		strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10), strings.Join(names, "+"), strings.Join(values, "+"), bytesText(r.Value),
	}, "|")
}

func timeText(t time.Time) string { return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) }

func bytesText(b []byte) string {
	if b == nil {
		return "null"
	}
	return hexOf(b)
}

// indexedLines reads <ns>.events in the same form, in the order of partitions and offsets.
func indexedLines(t testing.TB, pool *pgxpool.Pool, ns, category string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select stream, version, id, type, time, recorded_at, correlation_id, causation_id, user_id, command_id, partition, "offset", header_names, header_values, value
		from `+quote(ns, "events")+` where category = $1 order by partition, "offset"`, category)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var stream, id, typ, correlation, causation, user, command string
		var version, offset int64
		var partition int32
		var at, recorded time.Time
		var names []string
		var raw [][]byte
		var value []byte
		if err := rows.Scan(&stream, &version, &id, &typ, &at, &recorded, &correlation, &causation, &user, &command, &partition, &offset, &names, &raw, &value); err != nil {
			t.Fatal(err)
		}
		var values []string
		for _, v := range raw {
			values = append(values, bytesText(v))
		}
		out = append(out, strings.Join([]string{
			category, stream, strconv.FormatInt(version, 10), id, typ, timeText(at), timeText(recorded), correlation, causation, user, command,
			strconv.Itoa(int(partition)), strconv.FormatInt(offset, 10), strings.Join(names, "+"), strings.Join(values, "+"), bytesText(value),
		}, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// wantIndexed demands that the index holds just these records.
func (d *desk) wantIndexed(records ...*kgo.Record) {
	d.t.Helper()
	var want []string
	for _, r := range records {
		want = append(want, indexedLine("probe", r))
	}
	wantLines(d.t, "indexed events", indexedLines(d.t, d.pool, "fs", "probe"), want...)
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

func TestEventsAreIndexedAsTheyStandInTheLog(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		full := d.noted("a", "one", 1)
		full.Headers = append(full.Headers, header(event.HeaderCorrelationID, "corr"), header(event.HeaderCausationID, "cause"), header(event.HeaderUserID, "ünï"),
			header(event.HeaderCommandID, "cmd"), header(event.HeaderTraceparent, "00-1"), header("x-own", "kept\x00\xff"), kgo.RecordHeader{Key: "x-null"}, header("x-own", ""))
		foreign := d.rec("nobody.Knows", "b", 1, []byte("no Avro at all"))
		empty := d.rec("probe.Noted", "c", 1, []byte{})
		timeless := without(d.noted("a", "x", 2), event.HeaderTime)
		d.apply(full, d.control(event.ControlKeepalive), foreign, empty)
		d.w = d.hire()
		d.apply(full, timeless)
		d.wantIndexed(full, foreign, empty, timeless)
		wantLines(t, "letters", d.letterLines())
		wantLines(t, "versions", lines(t, d.pool, `select format('%s %s', stream, version) from fs_events_v1.stream_versions where category = 'probe' order by 1`), "a 2", "b 1", "c 1")
	})
}

func TestAForeignHeadersNameThatPostgresCannotHoldIsMadeReadable(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		r := d.noted("a", "one", 1)
		r.Headers = append(r.Headers, header("x\x00\xff", "v"))
		d.apply(r)
		if got := scan[string](t, d.pool, `select header_names[1] from fs.events`); got != "x\u2400\ufffd" {
			t.Errorf("got %q", got)
		}
		wantLines(t, "letters", d.letterLines())
	})
}

func TestOnlyARecordThatIsNoEventParksAStreamOfTheIndex(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		a1, b1, bad, b2, a3 := d.noted("a", "error", 1), d.noted("b", "panic", 1), without(d.noted("a", "x", 2), event.HeaderType), d.noted("b", "two", 2), d.noted("a", "three", 3)
		keyless := d.noted("x", "x", 1)
		keyless.Key = nil
		d.apply(a1, b1, bad, b2, a3, keyless)
		d.wantIndexed(a1, b1, b2)
		wantLines(t, "letters", d.letterLines(), "2 failed decode envelope", "4 blocked-by-key handle blocked-by-key", "5 failed decode envelope")
		wantLines(t, "parked", d.parkedLines(), "a 2")
	})
}

func TestW6VoidRecordsAreNotIndexed(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		d.claim = event.Claim{ProducerID: 7, Epoch: 1}
		claim, a1 := d.control(event.ControlClaim), d.noted("a", "one", 1)
		d.claim.Epoch = 2
		second := d.control(event.ControlClaim)
		d.claim.Epoch = 1
		void := d.noted("a", "void", 100)
		d.last["a"]--
		d.claim.Epoch = 2
		a2 := d.noted("a", "two", 2)
		d.apply(claim, a1, second, void, a2)
		d.wantIndexed(a1, a2)
		wantLines(t, "letters", d.letterLines(), "3 void decode void")
		wantLines(t, "parked", d.parkedLines())
	})
}

func TestAGapStopsTheIndex(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		a1, b1 := d.noted("a", "one", 1), d.noted("b", "one", 1)
		d.last["a"] = 4
		wantStop(t, d.w.apply(recs(a1, b1, d.noted("a", "one", 1))), "view events", "probe/a", "have version 5", "want 2")
		d.wantIndexed(a1, b1)
		if got := d.nextOffset(); got != 2 {
			t.Errorf("offset row: got %d, want 2", got)
		}
	})
}

func TestP1AFencedIndexerWritesNothing(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		a1 := d.noted("a", "one", 1)
		d.db.breakCommit = true
		d.apply(a1)
		old := d.w
		d.w = d.hire()
		a2 := d.noted("a", "two", 2)
		if err := old.apply(recs(a2)); !errors.Is(err, errFenced) {
			t.Errorf("got %v, want %v", err, errFenced)
		}
		d.wantIndexed(a1)
		d.db.breakRollback = true
		d.apply(a2)
		d.wantIndexed(a1, a2)
	})
}

func TestW9TheIndexStopsAtAnotherTopicUnderTheSameName(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		for _, view := range []projection.View{probeEvents(), probeSnapshots()} {
			d := newDesk(t, pg, view)
			d.apply(d.noted("a", "one", 1))
			d.w = d.hire()
			d.w.status.topicID = event.FormatTopicID([16]byte{9})
			wantStop(t, d.w.apply(recs(d.noted("a", "two", 2))), "made again", "drop this view version's schema")
		}
	})
}

// slotRecord makes a record of a snapshots topic.
func (d *desk) slotRecord(key []byte, shot *snapshot.Snapshot) *kgo.Record {
	d.t.Helper()
	r := d.rec("", "", 0, nil)
	r.Key, r.Headers = key, nil
	if shot == nil {
		return r
	}
	value, compressed, err := d.w.decoder.slots.EncodeSnapshot(*shot)
	if err != nil {
		d.t.Fatal(err)
	}
	if r.Value = value; compressed {
		r.Headers = []kgo.RecordHeader{header(snapshot.HeaderEncoding, snapshot.EncodingZstd)}
	}
	return r
}

func slotLines(t testing.TB, pool *pgxpool.Pool, ns string) []string {
	t.Helper()
	return lines(t, pool, `select format('%s/%s#%s v%s@%s s%s %s %s %s %s', category, stream, slot, version, "offset", state_version, topic_id, to_char(taken_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US'), encoding, encode(value, 'hex'))
		from `+quote(ns, "snapshots")+` order by category, stream, slot`)
}

func slotLine(stream string, slot int, shot snapshot.Snapshot, r *kgo.Record) string {
	encoding, _ := event.HeaderValue(r.Headers, snapshot.HeaderEncoding)
	return fmt.Sprintf("probe/%s#%d v%d@%d s%d %s %s %s %s", stream, slot, shot.Version, shot.Offset, shot.StateVersion,
		event.FormatTopicID(shot.EventsTopicID), shot.TakenAt.Format("2006-01-02T15:04:05.000000"), encoding, hexOf(r.Value))
}

func shotAt(version int64, state string) snapshot.Snapshot {
	return snapshot.Snapshot{Version: version, Offset: 10 * version, EventsTopicID: deskTopicID, TakenAt: t0.Add(time.Duration(version) * time.Second), StateVersion: 3, State: []byte(state), Commands: []snapshot.Command{}}
}

func TestHistorySlotsAreKeptAsTheyStandInTheirTopic(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeSnapshots())
		small, large, next, mark := shotAt(100, "s"), shotAt(200, strings.Repeat("state ", 500)), shotAt(600, "n"), shotAt(0, "")
		a1, a2, b1 := d.slotRecord(snapshot.HistoryKey("a", 1), &small), d.slotRecord(snapshot.HistoryKey("a", 2), &large), d.slotRecord(snapshot.HistoryKey("b", 1), &small)
		d.apply(
			d.slotRecord(snapshot.LatestKey("a"), &large), d.slotRecord(snapshot.CheckpointKey(), nil), d.control(event.ControlClaim),
			a1, a2, b1, d.slotRecord([]byte("claim\x00x"), &small),
		)
		wantLines(t, "slots", slotLines(t, d.pool, "fs"), slotLine("a", 1, small, a1), slotLine("a", 2, large, a2), slotLine("b", 1, small, b1))

		d.claim = event.Claim{ProducerID: 1, Epoch: 9} // of no claim that is still there: W6 does not apply
		d.w = d.hire()
		a1next := d.slotRecord(snapshot.HistoryKey("a", 1), &next)
		b1gone, b1again := d.slotRecord(snapshot.HistoryKey("b", 1), nil), d.slotRecord(snapshot.HistoryKey("b", 1), &large)
		unreadable := d.slotRecord(snapshot.HistoryKey("a", 2), &small)
		unreadable.Value = []byte("junk")
		unknown := d.slotRecord(snapshot.HistoryKey("a", 2), &small)
		unknown.Headers = []kgo.RecordHeader{header(snapshot.HeaderEncoding, "br")}
		d.apply(a1next, b1gone, b1again, unreadable, unknown, d.slotRecord(snapshot.HistoryKey("a", 2), &mark), d.slotRecord(snapshot.HistoryKey("c", 0), nil))
		wantLines(t, "slots", slotLines(t, d.pool, "fs"), slotLine("a", 1, next, a1next), slotLine("a", 2, large, a2), slotLine("b", 1, large, b1again))
		if got := testutil.ToFloat64(d.w.metrics.unreadable.WithLabelValues(d.w.view)); got != 2 {
			t.Errorf("unreadable snapshots counted: got %v, want 2", got)
		}

		d.apply(d.slotRecord(snapshot.HistoryKey("b", 1), &small), d.slotRecord(snapshot.HistoryKey("b", 1), nil), d.slotRecord(snapshot.HistoryKey("a", 1), nil))
		wantLines(t, "slots", slotLines(t, d.pool, "fs"), slotLine("a", 2, large, a2))
		wantLines(t, "letters", d.letterLines())
		if got, want := d.nextOffset(), d.offset; got != want {
			t.Errorf("offset row: got %d, want %d", got, want)
		}
	})
}

func TestP1AFencedKeeperOfSlotsWritesNothing(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeSnapshots())
		one, two := shotAt(100, "one"), shotAt(600, "two")
		d.db.breakCommit = true
		first, second := d.slotRecord(snapshot.HistoryKey("a", 1), &one), d.slotRecord(snapshot.HistoryKey("a", 1), &two)
		d.apply(first)
		old := d.w
		d.w = d.hire()
		if err := old.apply(recs(second)); !errors.Is(err, errFenced) {
			t.Errorf("got %v, want %v", err, errFenced)
		}
		wantLines(t, "slots", slotLines(t, d.pool, "fs"), slotLine("a", 1, one, first))
		d.db.breakRollback = true
		d.apply(second)
		wantLines(t, "slots", slotLines(t, d.pool, "fs"), slotLine("a", 1, two, second))
	})
}

func TestMigrateSystemViews(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		pool := newPool(t, pg)
		done := make(chan error)
		for range 4 {
			go func() {
				done <- errors.Join(MigrateSystemViews(t.Context(), pool, "fs"), Migrate(t.Context(), pool, "fs", []projection.View{probeList()}))
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Errorf("four at once: %v", err)
			}
		}
		wantLines(t, "views", lines(t, pool, `select format('%s %s %s', name, version, live) from fs.views order by 1`), "events 1 t", "probe_list 1 t", "snapshots 1 t")
		this := monthOf(time.Now())
		months := lines(t, pool, `select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'fs_events_v1.rows'::regclass order by 1`)
		wantLines(t, "partitions", months, this.table(), this.next().table())
		// The contract with the readers of the index.
		columns := func(table string) []string {
			got := lines(t, pool, `select format('%s %s', attname, format_type(atttypid, atttypmod)) from pg_attribute where attrelid = $1::regclass and attnum > 0`, table)
			slices.Sort(got)
			return got
		}
		wantLines(t, "columns of fs.events", columns("fs.events"), "category text", "causation_id text", "command_id text", "correlation_id text", "header_names text[]", "header_values bytea[]",
			"id text", "offset bigint", "partition integer", "recorded_at timestamp with time zone", "stream text", "time timestamp with time zone", "type text", "user_id text", "value bytea", "version bigint")
		wantLines(t, "columns of fs.snapshots", columns("fs.snapshots"), "category text", "encoding text", "offset bigint", "slot integer", "state_version integer", "stream text",
			"taken_at timestamp with time zone", "topic_id text", "value bytea", "version bigint")
		wantLines(t, "keys", lines(t, pool, `select pg_get_constraintdef(oid) from pg_constraint where contype = 'p' and conrelid in ('fs_events_v1.rows'::regclass, 'fs_snapshots_v1.rows'::regclass, $1::regclass) order by 1`, "fs_events_v1."+this.table()),
			"PRIMARY KEY (category, stream, slot)", "PRIMARY KEY (category, stream, version, recorded_at)", "PRIMARY KEY (category, stream, version, recorded_at)")
		if err := MigrateSystemViews(t.Context(), pool, "No"); err == nil || !strings.Contains(err.Error(), "namespace") {
			t.Errorf("a bad namespace: got %v", err)
		}
	})
}

func TestAStreamIsReadByTheKeyInBothDirections(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		var batch []*kgo.Record
		for i := range 2000 {
			r := d.noted(fmt.Sprintf("s%d", i%20), "x", 1)
			r.Timestamp = t0.AddDate(0, i/1000, 0)
			batch = append(batch, r)
		}
		d.apply(batch...)
		if _, err := d.pool.Exec(t.Context(), `vacuum analyze fs_events_v1.rows`); err != nil {
			t.Fatal(err)
		}
		for _, direction := range []string{"asc", "desc"} {
			plan := strings.Join(lines(t, d.pool, `explain select value from fs.events where category = 'probe' and stream = 's7' and version between 10 and 1000 order by version `+direction+` limit 10`), "\n")
			if !strings.Contains(plan, "Merge Append") || strings.Contains(plan, "Seq Scan") {
				t.Errorf("%s: the plan does not go through the key in order:\n%s", direction, plan)
			}
		}
	})
}

func TestConfigTakesSystemViewsAlone(t *testing.T) {
	base := Config{Namespace: "fs", Kafka: []kgo.Opt{kgo.SeedBrokers("x")}, Pool: &pgxpool.Pool{}, Codec: probeCodec(t)}
	if _, err := New(base); err == nil || !strings.Contains(err.Error(), "EventCategories") {
		t.Errorf("neither views nor categories: got %v, want a fault", err)
	}
	base.EventCategories = []string{"probe", "dlq"}
	if _, err := New(base); err == nil || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("a reserved category: got %v, want a fault", err)
	}
	base.EventCategories = []string{"probe", "other", "probe"}
	p, err := New(base)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range p.consumers {
		for topic := range c.categories {
			got = append(got, c.label+" "+topic)
		}
	}
	slices.Sort(got)
	wantLines(t, "what is read", got, "events.v1 fs.other.events", "events.v1 fs.probe.events", "snapshots.v1 fs.other.snapshots", "snapshots.v1 fs.probe.snapshots")
}

// The steps of docs/operations.md, "Rebuilding a view".
func TestTheIndexIsRebuiltByTheStepsForViews(t *testing.T) {
	onPostgres(t, func(t *testing.T, pg *testkit.Postgres) {
		d := newDesk(t, pg, probeEvents())
		a1, b1 := d.noted("a", "one", 1), d.dated("b", t0.AddDate(-1, 0, 0))
		d.apply(a1, b1)
		forgotten := d.w
		if _, err := d.pool.Exec(t.Context(), `begin;
			drop schema fs_events_v1 cascade;
			update fs.offsets set epoch = epoch + 1, next_offset = -2, topic_id = '', claim_producer_id = null, claim_epoch = null, last_event_id = ''
			 where consumer = 'view.events.v1';
			delete from fs.parked  where consumer = 'view.events.v1';
			delete from fs.letters where consumer = 'view.events.v1';
			delete from fs.views   where name = 'events' and version = 1;
			commit;`); err != nil {
			t.Fatal(err)
		}
		if err := MigrateSystemViews(t.Context(), d.pool, "fs"); err != nil {
			t.Fatal(err)
		}
		a2 := d.noted("a", "two", 2)
		if err := forgotten.apply(recs(a2)); !errors.Is(err, errFenced) {
			t.Errorf("a forgotten worker: got %v, want %v", err, errFenced)
		}
		d.w = d.hire()
		d.apply(a1, b1, a2)
		d.wantIndexed(a1, b1, a2)
	})
}
