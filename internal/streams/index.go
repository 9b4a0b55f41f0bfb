package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The system view that is the index, its consumer, and the one of the history slots. A projector
// keeps both; the tables are those of one version, so that rows and offset row belong together.
const (
	eventsView    = "events"
	snapshotsView = "snapshots"
	viewVersion   = 1
)

// index is the system views in Postgres. Safe for concurrent use.
type index struct {
	pool     *pgxpool.Pool
	consumer string
	bytesMax int64
	sql      indexSQL
}

type indexSQL struct {
	begin, commit string
	position      string // $1 consumer, $2 topic, $3 partition
	parked        string // likewise, $4 key
	version       string // $1 category, $2 stream: of the last event
	forward       string // … $3 from, $4 to, $5 limit
	backward      string // … $3 from, $4 limit
	command       string // … $3 command id, $4 limit: newest first
	versionAt     string // … $3 offset, $4 time: the last version below the one, not behind the other
	slots         string // … $3 version: those at or below it
	nearest       string // … $3 version: the last of those, with its state
	behind        string // … $3 version, $4 limit: the events behind that one, up to the version
	slot          string // … $3 slot, $4 version
}

// eventColumns are what eventRows reads. The arrays are asked for in their binary form.
const eventColumns = `version, "offset", type, time, recorded_at, id, correlation_id, causation_id, user_id, command_id, array_send(header_names), array_send(header_values), value`

// planSQL holds, until the end of a transaction, the planner to what one stream is stored in: the
// order of the primary key. Left to itself it reads ten thousand rows through a bitmap and sorts
// them on disk, or, before the first ANALYZE of a month, takes a stream for one row. JIT never pays
// for so little.
const planSQL = `select set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true), set_config('jit', 'off', true)`

func newIndex(pool *pgxpool.Pool, namespace string, bytesMax int64) *index {
	table := func(view, name string) string {
		return pgx.Identifier{fmt.Sprintf("%s_%s_v%d", namespace, view, viewVersion), name}.Sanitize()
	}
	own := func(name string) string { return pgx.Identifier{namespace, name}.Sanitize() }
	events, slots := table(eventsView, "rows"), table(snapshotsView, "rows")
	const stream = " where category = $1 and stream = $2"
	return &index{
		pool: pool, consumer: topics.ConsumerView(eventsView, viewVersion), bytesMax: bytesMax,
		sql: indexSQL{
			begin: "begin isolation level repeatable read, read only", commit: "commit",
			position: "select next_offset, topic_id, claim_producer_id, claim_epoch from " + own("offsets") +
				" where consumer = $1 and topic = $2 and partition = $3",
			parked: "select first_offset from " + own("parked") +
				" where consumer = $1 and topic = $2 and partition = $3 and key = $4",
			version:   "select version from " + table(eventsView, "stream_versions") + stream,
			forward:   "select " + eventColumns + " from " + events + stream + " and version >= $3 and version <= $4 order by version limit $5",
			backward:  "select " + eventColumns + " from " + events + stream + " and version <= $3 order by version desc limit $4",
			command:   `select version, "offset" from ` + events + stream + " and command_id = $3 order by version desc limit $4",
			versionAt: "select version from " + events + stream + ` and "offset" < $3 and recorded_at <= $4 order by version desc limit 1`,
			// The limit of one makes it a look-up for each slot, whatever the planner takes the tables for.
			slots: `select s.slot, s.version, s."offset", s.topic_id, s.state_version, e."offset", e.recorded_at from ` + slots + ` s left join lateral (select "offset", recorded_at from ` + events +
				" where category = s.category and stream = s.stream and version = s.version limit 1) e on true where s.category = $1 and s.stream = $2 and s.version <= $3 order by s.version desc",
			nearest: "select slot, version, encoding, value from " + slots + stream + " and version <= $3 order by version desc limit 1",
			behind: "select " + eventColumns + " from " + events + stream + " and version > coalesce((select max(version) from " + slots + stream +
				" and version <= $3), 0) and version <= $3 order by version limit $4",
			slot: "select encoding, value from " + slots + stream + " and slot = $3 and version = $4",
		},
	}
}

// indexed is what the index knows of a stream and its partition, in one snapshot.
type indexed struct {
	position position
	version  event.Version // of the stream's last event
	parked   int64         // offset of the record that the stream waits at; -1 for none
}

// look reads it, and what more wants, in one snapshot and one round trip. Without Postgres, and
// before its tables are made, the index has nothing and more is not asked.
func (x *index) look(ctx context.Context, p place, id event.StreamID, more ...query) (indexed, error) {
	nothing := indexed{position: position{next: positionStart}, parked: -1}
	if x == nil {
		return nothing, nil
	}
	out := nothing
	err := x.run(ctx, append([]query{
		{x.sql.position, []any{x.consumer, p.topic, p.partition}, one(func(rows pgx.Rows) error { return scanPosition(rows, &out.position) })},
		{x.sql.parked, []any{x.consumer, p.topic, p.partition, []byte(id.ID)}, one(func(rows pgx.Rows) error { return rows.Scan(&out.parked) })},
		{x.sql.version, []any{id.Category, id.ID}, one(func(rows pgx.Rows) error { return rows.Scan(&out.version) })},
	}, more...)...)
	if isMissing(err) {
		return nothing, nil
	}
	return out, err
}

// run reads in one snapshot. In one pipeline the statements between begin and commit see one, at
// the price of one round trip. Where one fails, the pool closes the connection, whose transaction is
// then open. The reading ends where one wants no more rows.
func (x *index) run(ctx context.Context, queries ...query) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(x.sql.begin)
	b.Queue(planSQL)
	for _, q := range queries {
		b.Queue(q.sql, q.args...).Query(func(rows pgx.Rows) error { return q.readOrBreak(rows, cancel) })
	}
	b.Queue(x.sql.commit)
	if err := x.pool.SendBatch(ctx, b).Close(); err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("read the index: %w", err)
	}
	return nil
}

// query is one statement whose rows read takes.
type query struct {
	sql  string
	args []any
	read func(pgx.Rows) error
}

// errEnough: no more rows are wanted.
var errEnough = errors.New("no more rows are wanted")

// readOrBreak closes the connection when no more rows are wanted: those that follow, which Postgres
// is already sending, may be gigabytes.
func (q query) readOrBreak(rows pgx.Rows, closeConn context.CancelFunc) error {
	err := q.read(rows)
	if errors.Is(err, errEnough) {
		closeConn()
	}
	return err
}

// one reads the row of a statement that has at most one.
func one(scan func(pgx.Rows) error) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}

// isMissing says that no projector has made the system views' tables yet.
func isMissing(err error) bool {
	const undefinedTable, undefinedSchema = "42P01", "3F000"
	var fault *pgconn.PgError
	return errors.As(err, &fault) && (fault.Code == undefinedTable || fault.Code == undefinedSchema)
}

func scanPosition(row pgx.Row, out *position) error {
	var producer *int64
	var epoch *int16
	if err := row.Scan(&out.next, &out.topicID, &producer, &epoch); err != nil {
		return err
	}
	if producer != nil && epoch != nil {
		out.lineage = event.Lineage{Known: true, Claim: event.Claim{ProducerID: *producer, Epoch: *epoch}}
	}
	return nil
}

// eventsQuery reads a stream's events from one version through another, at most limit.
func (x *index) eventsQuery(rows *eventRows, from, through event.Version, limit int) query {
	return x.rowsQuery(rows, x.sql.forward, int64(from), int64(through), limit)
}

// backwardQuery reads a stream's events from a version down.
func (x *index) backwardQuery(rows *eventRows, from event.Version, limit int) query {
	return x.rowsQuery(rows, x.sql.backward, int64(from), limit)
}

func (x *index) rowsQuery(rows *eventRows, sql string, args ...any) query {
	rows.bytesMax = x.bytesMax
	return query{sql, append([]any{rows.stream.Category, rows.stream.ID}, args...), rows.read}
}

// eventRows takes rows of eventColumns without reflection: a page can have ten thousand. The
// small texts of a row are one allocation, types and header names are one string for all rows.
type eventRows struct {
	place  place
	stream event.StreamID
	// take gets each event. Its Value, Extra and their values are good until it returns. errEnough
	// ends the rows.
	take func(*event.Recorded) error

	bytesMax int64
	bytes    int64
	cut      bool // bytesMax was passed: there are more rows

	event event.Recorded
	names map[string]string
	text  []byte
}

// Columns of eventColumns.
const (
	columnVersion = iota
	columnOffset
	columnType
	columnTime
	columnRecordedAt
	columnID
	columnCorrelationID
	columnCausationID
	columnUserID
	columnCommandID
	columnHeaderNames
	columnHeaderValues
	columnValue
)

func (r *eventRows) read(rows pgx.Rows) error {
	for _, f := range rows.FieldDescriptions() {
		if f.Format != pgx.BinaryFormatCode && f.DataTypeOID != pgtype.TextOID { // texts are the same in both
			return errors.New("the connection to Postgres speaks the simple protocol: leave default_query_exec_mode at its default")
		}
	}
	r.names = map[string]string{}
	for rows.Next() {
		if r.bytes > r.bytesMax {
			r.cut = true
			return errEnough
		}
		raw := rows.RawValues()
		for _, v := range raw {
			r.bytes += int64(len(v))
		}
		if err := r.parse(raw); err != nil {
			return err
		}
		if err := r.take(&r.event); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (r *eventRows) parse(raw [][]byte) error {
	e := &r.event
	*e = event.Recorded{Stream: r.stream, Partition: r.place.partition, CommandOffset: -1, DecidedOffset: -1}
	if len(raw[columnVersion]) != 8 || len(raw[columnOffset]) != 8 {
		return errors.New("a row of the events view has other columns than this program knows")
	}
	e.Version, e.Offset = event.Version(readInt64(raw[columnVersion])), readInt64(raw[columnOffset])
	e.Time, e.RecordedAt = readTime(raw[columnTime]), readTime(raw[columnRecordedAt])
	e.Type = r.name(raw[columnType])
	r.texts(e, raw)
	e.Value = raw[columnValue]
	var err error
	e.Extra, err = r.headers(raw[columnHeaderNames], raw[columnHeaderValues])
	return err
}

// texts makes one string of the small texts and cuts it.
func (r *eventRows) texts(e *event.Recorded, raw [][]byte) {
	r.text = r.text[:0]
	for i := columnID; i <= columnCommandID; i++ {
		r.text = append(r.text, raw[i]...)
	}
	rest := string(r.text)
	cut := func(n int) string {
		s := rest[:n]
		rest = rest[n:]
		return s
	}
	e.ID, e.CorrelationID, e.CausationID = cut(len(raw[columnID])), cut(len(raw[columnCorrelationID])), cut(len(raw[columnCausationID]))
	e.UserID, e.CommandID = cut(len(raw[columnUserID])), cut(len(raw[columnCommandID]))
}

func (r *eventRows) name(raw []byte) string {
	if s, known := r.names[string(raw)]; known {
		return s
	}
	s := string(raw)
	r.names[s] = s
	return s
}

func (r *eventRows) headers(names, values []byte) ([]event.Header, error) {
	keys, ok := readArray(names)
	contents, fits := readArray(values)
	if !ok || !fits || len(keys) != len(contents) {
		return nil, errors.New("header_names and header_values of a row do not fit together")
	}
	if len(keys) == 0 {
		return nil, nil
	}
	out := make([]event.Header, len(keys))
	for i := range keys {
		out[i] = event.Header{Key: r.name(keys[i]), Value: contents[i]}
	}
	return out, nil
}

// The binary forms of Postgres: integers are big-endian, times are microseconds since 2000.

func readInt64(b []byte) int64 {
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return int64(n)
}

func readInt32(b []byte) int32 { return int32(readInt64(b)) }

const postgresEpochSeconds = 946684800 // 2000-01-01 in Unix time

func readTime(b []byte) time.Time {
	if len(b) != 8 {
		return time.Time{}
	}
	micros := readInt64(b)
	return time.UnixMicro(micros + postgresEpochSeconds*1_000_000).UTC()
}

// readArray takes an array of one dimension apart; a NULL inside is nil.
func readArray(b []byte) (items [][]byte, ok bool) {
	const headBytes, dimensionBytes = 12, 8
	if b == nil {
		return nil, true
	}
	if len(b) < headBytes {
		return nil, false
	}
	switch dimensions := readInt32(b[:4]); {
	case dimensions == 0:
		return nil, true
	case dimensions != 1 || len(b) < headBytes+dimensionBytes:
		return nil, false
	}
	n := readInt32(b[headBytes : headBytes+4])
	b = b[headBytes+dimensionBytes:]
	if n < 0 || int(n) > len(b)/4 {
		return nil, false
	}
	items = make([][]byte, n)
	for i := range items {
		if len(b) < 4 {
			return nil, false
		}
		size := readInt32(b[:4])
		b = b[4:]
		if size < 0 {
			continue
		}
		if int(size) > len(b) {
			return nil, false
		}
		items[i], b = b[:size:size], b[size:]
	}
	return items, len(b) == 0
}

// slotMeta is a history slot without its state, and what the index has at its version.
type slotMeta struct {
	slot         int32
	version      event.Version
	offset       int64
	topicID      string
	stateVersion int32
	eventOffset  int64 // -1: the index does not have the event
	recordedAt   time.Time
}

func (x *index) slotsQuery(id event.StreamID, through event.Version, out *[]slotMeta) query {
	return query{x.sql.slots, []any{id.Category, id.ID, int64(through)}, func(rows pgx.Rows) error {
		*out = nil
		for rows.Next() {
			m := slotMeta{eventOffset: -1}
			var offset *int64
			var at *time.Time
			if err := rows.Scan(&m.slot, &m.version, &m.offset, &m.topicID, &m.stateVersion, &offset, &at); err != nil {
				return err
			}
			if offset != nil && at != nil {
				m.eventOffset, m.recordedAt = *offset, at.UTC()
			}
			*out = append(*out, m)
		}
		return rows.Err()
	}}
}

// ahead is what a state is most likely made of: the last slot at or below a version, and the first
// events behind it.
type ahead struct {
	slot     int32
	version  event.Version // 0: there is no slot
	encoding string
	value    []byte
	behind   collected
}

// aheadQueries reads it with the rest, for a stream's state costs one round trip then. Where the
// slot turns out not to count, it was read for nothing.
func (x *index) aheadQueries(p place, id event.StreamID, through event.Version, limit int, out *ahead) []query {
	rows := &eventRows{place: p, stream: id, take: out.behind.Take}
	nearest := query{x.sql.nearest, []any{id.Category, id.ID, int64(through)}, one(func(rows pgx.Rows) error {
		return rows.Scan(&out.slot, &out.version, &out.encoding, &out.value)
	})}
	return []query{nearest, x.rowsQuery(rows, x.sql.behind, int64(through), limit)}
}

// slotValue reads a slot's record; found is false when another snapshot took its place.
func (x *index) slotValue(ctx context.Context, id event.StreamID, m slotMeta) (encoding string, value []byte, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err = x.pool.QueryRow(ctx, x.sql.slot, id.Category, id.ID, m.slot, int64(m.version)).Scan(&encoding, &value)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil, false, nil
	}
	if err != nil {
		return "", nil, false, fmt.Errorf("read a history slot: %w", err)
	}
	return encoding, value, true, nil
}

// versionAtQuery finds the last version whose event lies below an offset and is not stamped behind a time.
func (x *index) versionAtQuery(id event.StreamID, below int64, at time.Time, out *event.Version) query {
	return query{x.sql.versionAt, []any{id.Category, id.ID, below, at}, func(rows pgx.Rows) error {
		*out = 0
		for rows.Next() {
			if err := rows.Scan(out); err != nil {
				return err
			}
		}
		return rows.Err()
	}}
}

// commandQuery lists the events of a command id, newest first.
func (x *index) commandQuery(id event.StreamID, commandID string, limit int, out *[]eventPlace) query {
	return query{x.sql.command, []any{id.Category, id.ID, commandID, limit}, func(rows pgx.Rows) error {
		*out = nil
		for rows.Next() {
			var e eventPlace
			if err := rows.Scan(&e.version, &e.offset); err != nil {
				return err
			}
			*out = append(*out, e)
		}
		return rows.Err()
	}}
}

// eventPlace is where an event is.
type eventPlace struct {
	version event.Version
	offset  int64
}

// storableText says whether Postgres can hold a text; what it cannot hold is in no row.
func storableText(s string) bool { return !strings.ContainsRune(s, 0) }
