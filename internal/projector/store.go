package projector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// database is what the store needs of a pool; a test puts failing commits behind it.
type database interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

var _ database = (*pgxpool.Pool)(nil)

// querier is a pool, a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// store is Postgres as one view version's workers use it. It may be used from any goroutine.
type store struct {
	db         database
	namespace  string
	consumer   string
	view       projection.View
	sql        statements
	rowColumns []projection.Column // entity views: the table's
	empty      projection.Row      // entity views: the columns of a row that is not there
	months     *months             // the events: their partitions
	holder     string              // the tool that this store works for; empty: the projector
	bulk       bool                // new streams are written by COPY
}

func newStore(db database, namespace, consumer string, view projection.View) (*store, error) {
	s := &store{db: db, namespace: namespace, consumer: consumer, view: view, sql: newStatements(namespace, view)}
	switch view.Kind {
	case projection.KindEntity:
	case kindEvents:
		s.months = newMonths(namespace)
		return s, nil
	default:
		return s, nil
	}
	s.rowColumns = storedColumns(view)
	var err error
	s.empty, err = emptyRow(view)
	return s, err
}

func (s *store) table(name string) string { return quote(s.namespace, name) }

// errFenced: another worker has bumped the epoch; nothing of this one counts any more.
var errFenced = errors.New("fenced: another worker has taken the partition over")

// place is one partition of a topic.
type place struct {
	topic     string
	partition int32
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// owned is a partition as D9 hands it over.
type owned struct {
	epoch int64
	position
}

// positionStart is the next_offset of a partition that was never read.
const positionStart = -2

// take bumps the epoch of each partition and returns their positions (PROTOCOL D9). The bump waits
// for a transaction that the predecessor has under way, and fences all later ones of it.
func (s *store) take(ctx context.Context, places []place) (map[place]owned, error) {
	places = slices.Clone(places)
	slices.SortFunc(places, comparePlaces) // one order for all, else two takers may deadlock
	topics, partitions := make([]string, len(places)), make([]int32, len(places))
	for i, p := range places {
		topics[i], partitions[i] = p.topic, p.partition
	}
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("take partitions over: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	// A tool that wants the view for itself waits for this transaction, and bumps after it.
	asked, err := s.lockControl(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err := s.admit(asked); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `insert into `+s.table("offsets")+` as o (consumer, topic, partition, epoch, next_offset)
		select $1, u.topic, u.partition, 1, $4 from unnest($2::text[], $3::int[]) as u (topic, partition)
		on conflict (consumer, topic, partition) do update set epoch = o.epoch + 1
		returning topic, partition, epoch, next_offset, topic_id, claim_producer_id, claim_epoch, last_event_id`,
		s.consumer, topics, partitions, int64(positionStart))
	if err != nil {
		return nil, fmt.Errorf("take partitions over: %w", err)
	}
	out := map[place]owned{}
	var p place
	var o owned
	var producer *int64
	var epoch *int16
	_, err = pgx.ForEachRow(rows, []any{&p.topic, &p.partition, &o.epoch, &o.next, &o.topicID, &producer, &epoch, &o.lastEventID}, func() error {
		o.lineage = event.Lineage{}
		if producer != nil && epoch != nil {
			o.lineage = event.Lineage{Known: true, Claim: event.Claim{ProducerID: *producer, Epoch: *epoch}}
		}
		out[p] = o
		return nil
	})
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("take partitions over: %w", err)
	}
	return out, nil
}

// idleTimeout ends a transaction whose process was stopped in the middle of it, so that it does
// not keep the partition's row from the next owner.
const idleTimeout = "5s"

// begin is a batch's first statement. In bulk, a commit does not wait for the disk: what Postgres
// loses in a crash it loses from the end, rows and offsets together, and the version is not given
// back before a commit that does wait.
func (s *store) begin() string {
	text := "select set_config('idle_in_transaction_session_timeout', '" + idleTimeout + "', true)"
	if s.bulk {
		text += ", set_config('synchronous_commit', 'off', true)"
	}
	return text
}

// fence begins a batch (PROTOCOL P1): the compare-and-set of the offset row, then the parked keys. A
// paused view's batch goes no further.
func (s *store) fence(ctx context.Context, tx pgx.Tx, p place, epoch, from int64, to position) (parked map[string]int64, asked control, err error) {
	var producer *int64
	var claimEpoch *int16
	if to.lineage.Known {
		producer, claimEpoch = &to.lineage.Claim.ProducerID, &to.lineage.Claim.Epoch
	}
	b := &pgx.Batch{}
	b.Queue(s.begin())
	b.Queue(`update `+s.table("offsets")+` set next_offset = $6, topic_id = $7, claim_producer_id = $8, claim_epoch = $9, last_event_id = $10, updated_at = now()
		where consumer = $1 and topic = $2 and partition = $3 and epoch = $4 and next_offset = $5`,
		s.consumer, p.topic, p.partition, epoch, from, to.next, to.topicID, producer, claimEpoch, deadletter.CleanText(to.lastEventID, event.IDBytesMax))
	// After the row's lock: who changes what is asked while holding the lock is obeyed at once.
	b.Queue(s.selectControl(), s.consumer, s.view.Name, s.view.Version)
	b.Queue(`select p.key, p.first_offset, p.letters, exists (select from `+s.table("letters")+` l where l.consumer = p.consumer and l.topic = p.topic and l.partition = p.partition
			and md5(l.key) = md5(p.key) and l.key = p.key and l.reason <> $4)
		from `+s.table("parked")+` p where p.consumer = $1 and p.topic = $2 and p.partition = $3`, s.consumer, p.topic, p.partition, string(deadletter.ReasonVoid))
	results := tx.SendBatch(ctx, b)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return nil, asked, fmt.Errorf("begin batch: %w", err)
	}
	tag, err := results.Exec()
	if err != nil {
		return nil, asked, fmt.Errorf("compare and set the offset row: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, asked, errFenced
	}
	if err := results.QueryRow().Scan(asked.fields()...); err != nil {
		return nil, asked, fmt.Errorf("read what is asked of the view: %w", err)
	}
	if err := s.admit(asked); err != nil {
		if s.holder != "" {
			return nil, asked, deadletter.Stopped("held", err)
		}
		return nil, asked, fmt.Errorf("%w (%w)", errFenced, err)
	}
	if asked.paused && s.holder == "" {
		return nil, asked, errPaused
	}
	rows, err := results.Query()
	if err != nil {
		return nil, asked, fmt.Errorf("read parked keys: %w", err)
	}
	parked = map[string]int64{}
	var gone [][]byte
	var key []byte
	var first, letters int64
	var waits bool
	asked.letters = map[string]int64{}
	_, err = pgx.ForEachRow(rows, []any{&key, &first, &letters, &waits}, func() error {
		if waits {
			parked[string(key)], asked.letters[string(key)] = first, letters
		} else {
			gone = append(gone, slices.Clone(key))
		}
		return nil
	})
	if err = errors.Join(err, results.Close()); err != nil {
		return nil, asked, fmt.Errorf("read parked keys: %w", err)
	}
	return parked, asked, s.unpark(ctx, tx, p, gone)
}

// unpark lets streams go on whose letters are gone: resolved by a person, or applied by a redrive.
func (s *store) unpark(ctx context.Context, tx pgx.Tx, p place, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `delete from `+s.table("parked")+` where consumer = $1 and topic = $2 and partition = $3 and key = any($4)`, s.consumer, p.topic, p.partition, keys)
	if err != nil {
		return fmt.Errorf("unpark %d keys: %w", len(keys), err)
	}
	return nil
}

// positionOf reads an offset row again, waiting for a transaction that still holds it.
func (s *store) positionOf(ctx context.Context, p place) (epoch, next int64, err error) {
	err = s.db.QueryRow(ctx, `select epoch, next_offset from `+s.table("offsets")+` where consumer = $1 and topic = $2 and partition = $3 for update`,
		s.consumer, p.topic, p.partition).Scan(&epoch, &next)
	if err != nil {
		return 0, 0, fmt.Errorf("read the offset row again: %w", err)
	}
	return epoch, next, nil
}

// load reads what Postgres has of streams. Those that it does not have are left out.
func (s *store) load(ctx context.Context, tx pgx.Tx, category string, ids []string) (map[string]stored, error) {
	if s.view.Kind != projection.KindEntity {
		return s.loadVersions(ctx, tx, category, ids)
	}
	rows, err := tx.Query(ctx, s.sql.selectRows, ids)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	defer rows.Close()
	out := make(map[string]stored, len(ids))
	last := len(s.rowColumns)
	for rows.Next() {
		row, err := readRow(rows, s.rowColumns)
		if err != nil {
			return nil, fmt.Errorf("read rows: %w", err)
		}
		out[row[0].(string)] = stored{row: row[1 : last-2 : last-2], version: event.Version(row[last-2].(int64)), exists: row[last-1].(bool)}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return out, nil
}

func (s *store) loadVersions(ctx context.Context, tx pgx.Tx, category string, ids []string) (map[string]stored, error) {
	rows, err := tx.Query(ctx, s.sql.selectVersions, slices.Repeat([]string{category}, len(ids)), ids)
	if err != nil {
		return nil, fmt.Errorf("read stream versions: %w", err)
	}
	out := make(map[string]stored, len(ids))
	var stream string
	var version int64
	_, err = pgx.ForEachRow(rows, []any{nil, &stream, &version}, func() error {
		out[stream] = stored{version: event.Version(version)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read stream versions: %w", err)
	}
	return out, nil
}

// write stores the effects of streams, one statement per table.
func (s *store) write(ctx context.Context, tx pgx.Tx, category string, streams []*streamWork) error {
	switch s.view.Kind {
	case projection.KindMetric:
		return s.writeDeltas(ctx, tx, category, streams)
	case projection.KindAppend, kindEvents:
		return s.writeAppended(ctx, tx, category, streams)
	}
	rows := make([]projection.Row, 0, len(streams))
	var fresh []projection.Row
	for _, w := range streams {
		switch {
		case w.applied == 0:
		case s.copied(w):
			fresh = append(fresh, s.storedRow(w.id, w.after))
		default:
			rows = append(rows, s.storedRow(w.id, w.after))
		}
	}
	if err := s.copyRows(ctx, tx, s.rowColumns, fresh); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, s.sql.writeRows, columnArrays(s.rowColumns, rows)...); err != nil {
		return fmt.Errorf("write %d rows: %w", len(rows), err)
	}
	return nil
}

func (s *store) writeDeltas(ctx context.Context, tx pgx.Tx, category string, streams []*streamWork) error {
	merged := map[string]projection.Row{}
	for _, w := range streams {
		if w.applied == 0 {
			continue
		}
		for _, delta := range w.rows {
			if err := s.mergeDelta(merged, delta); err != nil {
				return err
			}
		}
	}
	streams, err := s.copyVersions(ctx, tx, category, streams)
	if err != nil {
		return err
	}
	// One order of keys for all partitions, else two transactions may deadlock.
	rows := make([]projection.Row, 0, len(merged))
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		rows = append(rows, merged[key])
	}
	b := &pgx.Batch{}
	if len(rows) > 0 {
		b.Queue(s.sql.writeRows, columnArrays(append(slices.Clone(s.view.Key), s.view.Columns...), rows)...)
	}
	s.queueVersions(b, category, streams)
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write %d metric rows of %d streams: %w", len(rows), len(streams), err)
	}
	return nil
}

func (s *store) queueVersions(b *pgx.Batch, category string, streams []*streamWork) {
	if ids, versions := versionsOf(streams); len(ids) > 0 {
		b.Queue(s.sql.upsertVersions, slices.Repeat([]string{category}, len(ids)), ids, versions)
	}
}

func (s *store) writeAppended(ctx context.Context, tx pgx.Tx, category string, streams []*streamWork) error {
	var rows []projection.Row
	for _, w := range streams {
		if w.applied > 0 {
			rows = append(rows, w.rows...)
		}
	}
	streams, err := s.copyVersions(ctx, tx, category, streams)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	switch {
	case len(rows) == 0:
	case s.view.Kind == kindEvents:
		err = s.copyEvents(ctx, tx, rows)
	case s.bulk:
		err = s.copyRows(ctx, tx, s.view.Layout(), rows)
	default:
		b.Queue(s.sql.writeRows, columnArrays(s.view.Layout(), rows)...)
	}
	if err != nil {
		return err
	}
	s.queueVersions(b, category, streams)
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("append %d rows of %d streams: %w", len(rows), len(streams), err)
	}
	return nil
}

// checkViolation is the SQLSTATE of a row that no partition takes; of a constraint, when one is named.
const checkViolation = "23514"

func (s *store) copyEvents(ctx context.Context, tx pgx.Tx, rows []projection.Row) error {
	source := pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return rows[i], nil })
	_, err := tx.CopyFrom(ctx, pgx.Identifier{SchemaName(s.namespace, s.view), "rows"}, namesOf(s.view.Layout()), source)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == checkViolation && refused.ConstraintName == "" {
		s.months.forget()
		return deadletter.Retried("partition", fmt.Errorf("a month's partition was dropped or detached: %w", err))
	}
	if err != nil {
		return fmt.Errorf("index %d events: %w", len(rows), err)
	}
	return nil
}

func (s *store) mergeDelta(merged map[string]projection.Row, delta projection.Row) error {
	key := projection.KeyOf(delta[:len(s.view.Key)])
	row, found := merged[key]
	if !found {
		merged[key] = slices.Clone(delta)
		return nil
	}
	if err := s.view.MergeInto(row, delta); err != nil {
		return handlerFault(err)
	}
	return nil
}

// writeLetters stores the rows by which letters count, and the keys that they park.
func (s *store) writeLetters(ctx context.Context, tx pgx.Tx, p place, letters []lettered, parks map[string]int64) error {
	b := &pgx.Batch{}
	for _, l := range letters {
		names, values := headerArrays(l.Record.Headers)
		b.Queue(`insert into `+s.table("letters")+` (consumer, topic_id, partition, "offset", topic, id, key, value, header_names, header_values,
			event_type, stream_version, stage, class, message, reason, fingerprint, attempts, first_at, letter_partition, letter_offset)
			values ($1, $2, $3, $4, $5, $6::text::uuid, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
			on conflict do nothing`,
			s.consumer, event.FormatTopicID(l.TopicID), l.Record.Partition, l.Record.Offset, l.Record.Topic, l.ID, l.Record.Key, l.Record.Value, names, values,
			deadletter.CleanText(l.typ, event.TypeBytesMax), l.version, string(l.Stage), l.Class, l.Message, string(l.Reason), l.Fingerprint, l.Attempts, l.FirstAt,
			l.placed.Partition, l.placed.Offset)
	}
	counts := map[string]int64{}
	for _, l := range letters {
		counts[string(l.Record.Key)]++
	}
	for _, key := range slices.Sorted(maps.Keys(parks)) {
		b.Queue(`insert into `+s.table("parked")+` (consumer, topic, partition, key, first_offset) values ($1, $2, $3, $4, $5)`,
			s.consumer, p.topic, p.partition, []byte(key), parks[key])
	}
	if len(counts) > 0 {
		keys, numbers := make([][]byte, 0, len(counts)), make([]int64, 0, len(counts))
		for key, n := range counts {
			keys, numbers = append(keys, []byte(key)), append(numbers, n)
		}
		b.Queue(`update `+s.table("parked")+` k set letters = k.letters + u.n from unnest($4::bytea[], $5::bigint[]) as u (key, n)
			where k.consumer = $1 and k.topic = $2 and k.partition = $3 and k.key = u.key`, s.consumer, p.topic, p.partition, keys, numbers)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		// Not a fault of one record's data: the row is made to hold any bytes.
		return deadletter.Retried("letters", fmt.Errorf("write %d letters: %w", len(letters), err))
	}
	return nil
}

func headerArrays(headers []event.Header) (names, values [][]byte) {
	names, values = make([][]byte, len(headers)), make([][]byte, len(headers))
	for i, h := range headers {
		names[i], values[i] = []byte(h.Key), h.Value
	}
	return names, values
}

// commitUnknownError: the connection was lost around a COMMIT.
type commitUnknownError struct{ err error }

func (e *commitUnknownError) Error() string { return "outcome of COMMIT unknown: " + e.err.Error() }
func (e *commitUnknownError) Unwrap() error { return e.err }

// commit tells a refused COMMIT from one of unknown outcome.
func commit(ctx context.Context, tx pgx.Tx) error {
	err := tx.Commit(ctx)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fmt.Errorf("commit: %w", err)
	case errors.As(err, &refused) && refused.Severity != "FATAL":
		return fmt.Errorf("commit: %w", err)
	}
	return &commitUnknownError{err: err}
}
