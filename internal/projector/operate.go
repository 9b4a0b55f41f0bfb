package projector

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// VersionStatus is one version of a view, as it is now.
type VersionStatus struct {
	Name       string `json:"name"`
	Version    int    `json:"version"`
	Kind       string `json:"kind"`
	Live       bool   `json:"live"`
	Known      bool   `json:"known"` // this program has its code
	Dropped    bool   `json:"dropped"`
	Paused     bool   `json:"paused"`
	Reason     string `json:"reason,omitempty"`  // of the pause
	HeldBy     string `json:"held_by,omitempty"` // a tool that works on it
	Rebuilding bool   `json:"rebuilding"`        // a rebuild is not finished
	Records    int64  `json:"records"`           // of the log that it is past
	Behind     int64  `json:"behind"`            // records
	Parked     int64  `json:"parked"`
	Letters    int64  `json:"letters"`
}

// List tells of every version of every view, or of one view, that was ever made in the namespace.
func (o *Operator) List(ctx context.Context, name string) ([]VersionStatus, error) {
	all, err := o.versions(ctx, o.cfg.Pool, name)
	if err != nil {
		return nil, err
	}
	out := make([]VersionStatus, 0, len(all))
	for _, v := range all {
		s := VersionStatus{Name: v.name, Version: v.number, Kind: string(v.shape.Kind), Live: v.live, Dropped: v.dropped}
		_, missing := o.view(v.name, v.number)
		s.Known = missing == nil
		if err := o.fill(ctx, v, &s); err != nil {
			return nil, fmt.Errorf("look at %s: %w", v.label(), err)
		}
		out = append(out, s)
	}
	return out, nil
}

func (o *Operator) fill(ctx context.Context, v version, s *VersionStatus) error {
	err := o.cfg.Pool.QueryRow(ctx, `select coalesce(c.paused, false), coalesce(case when c.paused then c.reason end, ''),
			coalesce(case when c.held_until < clock_timestamp() then '' else c.held_by end, ''),
			exists (select from `+o.table("rebuilds")+` where consumer = $1),
			(select count(*) from `+o.table("parked")+` where consumer = $1), (select count(*) from `+o.table("letters")+` where consumer = $1)
		from (select 1) as one left join `+o.table("controls")+` c on c.consumer = $1`, v.consumer()).
		Scan(&s.Paused, &s.Reason, &s.HeldBy, &s.Rebuilding, &s.Parked, &s.Letters)
	if err != nil {
		return err
	}
	next, _, err := o.cutOf(ctx, o.cfg.Pool, v.consumer(), "")
	if err != nil || len(next) == 0 {
		return err
	}
	for _, at := range next {
		s.Records += max(0, at)
	}
	ends, err := o.ends(ctx, keys(next))
	s.Behind = behind(next, ends)
	return err
}

// known finds a version that is there and not dropped, and its code; 0 is the live one.
func (o *Operator) known(ctx context.Context, name string, number int) (version, projection.View, error) {
	all, err := o.versions(ctx, o.cfg.Pool, name)
	if err != nil {
		return version{}, projection.View{}, err
	}
	v, err := find(all, number)
	if err != nil {
		return v, projection.View{}, err
	}
	if v.dropped {
		return v, projection.View{}, fmt.Errorf("%s was dropped: %w", v.label(), ErrNoView)
	}
	view, err := o.view(v.name, v.number)
	return v, view, err
}

// Pause keeps a version where it is: no transaction begins from the moment that it returns. The
// live version's readers see an ever older state. 0 is the live version.
func (o *Operator) Pause(ctx context.Context, name string, number int, reason string) error {
	return o.setPaused(ctx, name, number, true, reason)
}

// Resume lets a paused version go on, also one that its breaker has paused.
func (o *Operator) Resume(ctx context.Context, name string, number int) error {
	return o.setPaused(ctx, name, number, false, "")
}

func (o *Operator) setPaused(ctx context.Context, name string, number int, paused bool, reason string) error {
	all, err := o.versions(ctx, o.cfg.Pool, name)
	if err != nil {
		return err
	}
	v, err := find(all, number)
	if err != nil {
		return err
	}
	action := "view.resume"
	if paused {
		action = "view.pause"
	}
	return pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		if err := setPaused(ctx, tx, o.cfg.Namespace, v.consumer(), paused, reason, o.cfg.Actor); err != nil {
			return err
		}
		// Batches under way hold their offset rows: they end first.
		if _, _, err := o.cutOf(ctx, tx, v.consumer(), " for update"); err != nil {
			return err
		}
		return o.trail.write(ctx, action, v.consumer(), map[string]any{"reason": reason})
	})
}

// ErrNotPaused: the version must be paused for that.
var ErrNotPaused = errors.New("the version is not paused: pause it first")

// ErrNothing: no record is there to work on.
var ErrNothing = errors.New("there is no such record")

// Place names a record of the log. An empty Topic is that of a view with one source.
type Place struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// StepReport is the one event that was applied.
type StepReport struct {
	Place
	Type    string `json:"type"`
	Stream  string `json:"stream"`
	Version int64  `json:"version"`
	Outcome string `json:"outcome"` // applied, skipped, letter
}

// Step applies the next event of one partition of a paused version; partition -1 is the first that
// has one waiting.
func (o *Operator) Step(ctx context.Context, name string, number int, topic string, partition int32) (StepReport, error) {
	v, view, err := o.known(ctx, name, number)
	if err != nil {
		return StepReport{}, err
	}
	var report StepReport
	err = o.withHeld(ctx, "step", v, view, func(f *folder) error {
		asked, err := f.store.control(ctx)
		if err != nil {
			return err
		}
		if !asked.paused {
			return fmt.Errorf("%s: %w", v.label(), ErrNotPaused)
		}
		w, err := o.waiting(ctx, f, topic, partition)
		if err != nil {
			return err
		}
		if err := o.trail.write(ctx, "view.step", v.consumer(), map[string]any{"topic": w.place.topic, "partition": w.place.partition}); err != nil {
			return err
		}
		report, err = f.step(ctx, w)
		return err
	})
	return report, err
}

// withHeld takes a version for the while of work.
func (o *Operator) withHeld(ctx context.Context, tool string, v version, view projection.View, work func(*folder) error) error {
	if begun, err := o.rebuilding(ctx, v.consumer()); err != nil || begun {
		return errors.Join(err, wrapIf(begun, v.label(), ErrRebuilding))
	}
	h, err := o.holding(ctx, v.consumer(), tool, true)
	if err != nil {
		return err
	}
	f, err := o.newFolder(ctx, h, view, false, 0)
	if err == nil {
		err = work(f)
		f.close()
	}
	return errors.Join(err, h.giveBack(ctx))
}

// waiting finds the partition to step in.
func (o *Operator) waiting(ctx context.Context, f *folder, topic string, partition int32) (*worker, error) {
	at := f.positions()
	ends, err := o.ends(ctx, keys(at))
	if err != nil {
		return nil, err
	}
	places := keys(at)
	slices.SortFunc(places, comparePlaces)
	for _, p := range places {
		asked := (topic == "" || topic == p.topic) && (partition < 0 || partition == p.partition)
		if asked && ends[p] > max(0, at[p]) {
			return f.workers[p], nil
		}
	}
	return nil, fmt.Errorf("%s: no partition that was asked for has an event waiting: %w", f.label(), ErrNothing)
}

// step applies records until one event, or letter, was among them.
func (f *folder) step(ctx context.Context, w *worker) (StepReport, error) {
	ends, err := f.o.ends(ctx, []place{w.place})
	if err != nil {
		return StepReport{}, err
	}
	for {
		r, err := f.o.record(ctx, w.place, w.at.next, ends[w.place])
		if err != nil {
			return StepReport{}, err
		}
		w.status.topicID = r.topicID
		parked := len(w.parked)
		if err := w.apply([]*kgo.Record{r.Record}); err != nil {
			return StepReport{}, err
		}
		if event.Control(r.Headers) != "" {
			continue
		}
		recorded, _ := event.ParseRecorded(w.category, r.Record)
		report := StepReport{
			Place: Place{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, Type: recorded.Type,
			Stream: recorded.Stream.ID, Version: int64(recorded.Version), Outcome: "applied",
		}
		if _, waits := w.parked[recorded.Stream.ID]; waits || len(w.parked) > parked {
			report.Outcome = "letter"
		} else if w.corrections.versions[streamVersion{recorded.Stream.ID, recorded.Version}] {
			report.Outcome = "skipped"
		}
		return report, nil
	}
}

// fetched is a record with the id of its topic.
type fetched struct {
	*kgo.Record
	topicID string
}

// record reads the first record at or after an offset, below end.
func (o *Operator) record(ctx context.Context, p place, from, end int64) (fetched, error) {
	at := kgo.NewOffset().AtStart()
	if from >= 0 {
		at = kgo.NoResetOffset().At(from).WithEpoch(-1)
	}
	if from >= end {
		return fetched{}, fmt.Errorf("%s[%d] ends at offset %d: %w", p.topic, p.partition, end, ErrNothing)
	}
	client, err := kgo.NewClient(append(slices.Clone(o.cfg.Kafka), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{p.topic: {p.partition: at}}))...)
	if err != nil {
		return fetched{}, fmt.Errorf("Kafka client: %w", err)
	}
	defer client.Close()
	bounded, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	for {
		fetches := client.PollRecords(bounded, 1)
		if bounded.Err() != nil {
			return fetched{}, fmt.Errorf("%s[%d] has no record from offset %d on that came within %s: %w", p.topic, p.partition, from, quietTime, cmp.Or(ctx.Err(), ErrNothing))
		}
		var out fetched
		var lost error
		fetches.EachTopic(func(t kgo.FetchTopic) {
			for _, fp := range t.Partitions {
				lost = errors.Join(lost, lostPosition(p, fp.Err))
				if len(fp.Records) > 0 {
					out = fetched{Record: fp.Records[0], topicID: event.FormatTopicID(t.TopicID)}
				}
			}
		})
		if out.Record != nil || lost != nil {
			return out, lost
		}
	}
}

// SkipRequest asks for one event to have no effect in one version.
type SkipRequest struct {
	Name    string
	Version int // 0: the live one
	Place   Place
	Reason  string // why, for the record; required
	Execute bool   // else it is only shown
}

// SkipReport is what was, or would be, left out.
type SkipReport struct {
	Correction Correction `json:"correction"`
	Letter     bool       `json:"letter"`  // the event is a letter; else it is still to come
	Applied    int        `json:"applied"` // later letters of its stream that were applied
	Waiting    int        `json:"waiting"` // letters of its stream that stay: the next of them fails, too
}

// ErrApplied: the event has had its effect.
var ErrApplied = errors.New("that event was applied already: what is wrong with it is mended by a new version of the view")

// Skip leaves one event out of a version, on record: in the topic <ns>.corrections, so that a rebuild
// of the version leaves it out as well. Its version counts, so that its stream goes on. An event
// that is a letter takes the later letters of its stream along: they are applied in order, up to
// the next that fails.
func (o *Operator) Skip(ctx context.Context, r SkipRequest) (SkipReport, error) {
	if r.Reason == "" {
		return SkipReport{}, errors.New("skip: say the reason, for the record")
	}
	v, view, err := o.known(ctx, r.Name, r.Version)
	if err != nil {
		return SkipReport{}, err
	}
	if isSystemView(view) {
		return SkipReport{}, fmt.Errorf("%s keeps every event as it is: nothing of it is skipped", v.label())
	}
	category, err := o.source(view, &r.Place)
	if err != nil {
		return SkipReport{}, err
	}
	c := Correction{
		Consumer: v.consumer(), Action: ActionSkip, Topic: r.Place.Topic, Partition: r.Place.Partition, Offset: r.Place.Offset,
		Reason: r.Reason, Actor: o.cfg.Actor, Time: o.cfg.Clock().UTC(),
	}
	letter, err := o.named(ctx, &c, category)
	report := SkipReport{Correction: c, Letter: letter}
	if err != nil || !r.Execute {
		return report, err
	}
	if !letter {
		return report, o.skipAhead(ctx, c)
	}
	err = o.withHeld(ctx, "skip", v, view, func(f *folder) error {
		report.Applied, report.Waiting, err = f.skipLetter(ctx, c)
		return err
	})
	return report, err
}

func isSystemView(v projection.View) bool { return v.Kind == kindEvents || v.Kind == kindSnapshots }

// source completes a place and returns its category.
func (o *Operator) source(v projection.View, p *Place) (string, error) {
	if p.Topic == "" && len(v.Categories) == 1 {
		p.Topic = topics.Events(o.cfg.Namespace, v.Categories[0])
	}
	for _, category := range v.Categories {
		if p.Topic == topics.Events(o.cfg.Namespace, category) {
			return category, nil
		}
	}
	return "", fmt.Errorf("view %s.v%d does not read topic %q: its sources are %v", v.Name, v.Version, p.Topic, v.Categories)
}

// named fills in which event stands at the correction's place, and says whether it is a letter.
func (o *Operator) named(ctx context.Context, c *Correction, category string) (letter bool, err error) {
	p := place{c.Topic, c.Partition}
	infos, err := topics.IDs(ctx, o.adm, c.Topic)
	if err != nil {
		return false, fmt.Errorf("read topic ids: %w", err)
	}
	c.TopicID = event.FormatTopicID(infos[c.Topic].ID)
	records, err := o.letters(ctx, o.cfg.Pool, c.Consumer, p, c.TopicID, ` and l."offset" = $5`, c.Offset)
	if err != nil {
		return false, err
	}
	var rec *kgo.Record
	if len(records) > 0 {
		letter, rec = true, records[0]
	} else {
		next, _, err := o.cutOf(ctx, o.cfg.Pool, c.Consumer, "")
		if err != nil {
			return false, err
		}
		if c.Offset < next[p] {
			return false, fmt.Errorf("%s[%d] offset %d: %w", p.topic, p.partition, c.Offset, ErrApplied)
		}
		ends, err := o.ends(ctx, []place{p})
		if err != nil {
			return false, err
		}
		found, err := o.record(ctx, p, c.Offset, ends[p])
		if err != nil {
			return false, err
		}
		rec = found.Record
	}
	if rec.Offset != c.Offset || event.Control(rec.Headers) != "" {
		return letter, fmt.Errorf("%s[%d] has no event at offset %d: %w", p.topic, p.partition, c.Offset, ErrNothing)
	}
	if recorded, envelope := event.ParseRecorded(category, rec); envelope == nil {
		c.Category, c.Stream, c.Version = category, recorded.Stream.ID, recorded.Version
	}
	return letter, nil
}

// letters reads those of a partition that park, in order, as the records that they were.
func (o *Operator) letters(ctx context.Context, db querier, consumer string, p place, topicID, condition string, arg any) ([]*kgo.Record, error) {
	rows, err := db.Query(ctx, `select l."offset", l.key, l.value, l.header_names, l.header_values from `+o.table("letters")+` l
		where l.consumer = $1 and l.topic = $2 and l.partition = $3 and l.topic_id = $4 and l.reason <> 'void'`+condition+` order by l."offset"`,
		consumer, p.topic, p.partition, topicID, arg)
	if err != nil {
		return nil, fmt.Errorf("read letters: %w", err)
	}
	var out []*kgo.Record
	for rows.Next() {
		r := &kgo.Record{Topic: p.topic, Partition: p.partition}
		var names, values [][]byte
		if err := rows.Scan(&r.Offset, &r.Key, &r.Value, &names, &values); err != nil {
			rows.Close()
			return nil, fmt.Errorf("read letters: %w", err)
		}
		for i, name := range names {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(name), Value: values[i]})
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read letters: %w", err)
	}
	return out, nil
}

// skipAhead puts the word on record before the event comes.
func (o *Operator) skipAhead(ctx context.Context, c Correction) error {
	return pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		// First the word, then the row's lock, as everybody who takes both: a batch that has the lock
		// before ends first, and one that gets it later reads the word.
		if err := storeCorrections(ctx, tx, o.cfg.Namespace, []Correction{c}); err != nil {
			return err
		}
		var next int64
		err := tx.QueryRow(ctx, `select next_offset from `+o.table("offsets")+` where consumer = $1 and topic = $2 and partition = $3 for update`, c.Consumer, c.Topic, c.Partition).Scan(&next)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if next > c.Offset {
			return ErrApplied
		}
		return o.putOnRecord(ctx, c)
	})
}

// putOnRecord writes the correction to its topic, and the audit's record.
func (o *Operator) putOnRecord(ctx context.Context, c Correction) error {
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("correction: %w", err)
	}
	r := &kgo.Record{Topic: topics.Corrections(o.cfg.Namespace), Key: c.key(), Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}}
	if err := o.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("put the skip on record: write to %s: %w", r.Topic, err)
	}
	return o.trail.write(ctx, "view.skip", c.Consumer, map[string]any{
		"topic": c.Topic, "partition": c.Partition, "offset": c.Offset, "stream": c.Stream, "version": c.Version, "reason": c.Reason,
	})
}

// skipLetter leaves a letter out and applies the later ones of its stream, in order, under the
// offset row's lock, with their effects in the same transaction (PROTOCOL P3).
func (f *folder) skipLetter(ctx context.Context, c Correction) (applied, waiting int, err error) {
	w := f.workers[place{c.Topic, c.Partition}]
	if w == nil {
		return 0, 0, fmt.Errorf("%s has no partition %d: %w", c.Topic, c.Partition, ErrNothing)
	}
	tx, err := f.store.db.Begin(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if err := storeCorrections(ctx, tx, f.store.namespace, []Correction{c}); err != nil {
		return 0, 0, err
	}
	_, asked, err := f.store.fence(ctx, tx, w.place, w.epoch, w.at.next, w.at)
	if err != nil {
		return 0, 0, err
	}
	if err := w.learnCorrections(ctx, tx, asked.revision); err != nil {
		return 0, 0, err
	}
	if c.Version == 0 {
		_, err = tx.Exec(ctx, `delete from `+f.store.table("letters")+` where consumer = $1 and topic_id = $2 and partition = $3 and "offset" = $4`, c.Consumer, c.TopicID, c.Partition, c.Offset)
	}
	if err == nil && c.Stream != "" {
		applied, waiting, err = f.applyLetters(ctx, tx, w, c)
	}
	if err == nil {
		err = f.o.putOnRecord(ctx, c)
	}
	if err != nil {
		return 0, 0, err
	}
	return applied, waiting, tx.Commit(ctx)
}

// applyLetters folds a stream's letters up to the first that fails.
func (f *folder) applyLetters(ctx context.Context, tx pgx.Tx, w *worker, c Correction) (applied, waiting int, err error) {
	records, err := f.o.letters(ctx, tx, c.Consumer, w.place, c.TopicID, ` and l.key = $5`, []byte(c.Stream))
	if err != nil {
		return 0, 0, err
	}
	b := newBatch(w.category, f.store.view, position{next: positionStart}, records)
	if err := f.decoder.decode(ctx, b); err != nil {
		return 0, 0, err
	}
	w.corrections.apply(b, c.TopicID)
	streams, apart := streamsOf(b, nil)
	if len(streams) != 1 || len(apart) > 0 {
		return 0, 0, fmt.Errorf("the letters of stream %s/%s are of %d streams: resolve them one by one", c.Category, c.Stream, len(streams)+len(apart))
	}
	if err := w.fold(ctx, tx, streams); err != nil {
		return 0, 0, err
	}
	if err := f.store.write(ctx, tx, w.category, streams); err != nil {
		return 0, 0, err
	}
	s := streams[0]
	upTo := int64(1<<63 - 1)
	if s.failedAt >= 0 {
		upTo = s.steps[s.failedAt].rec.Offset
		waiting = len(s.steps) - s.failedAt
	}
	return len(s.steps) - waiting, waiting, f.resolve(ctx, tx, c, upTo, s.failure)
}

// resolve removes a stream's letters below an offset; the one there, if any, is what it waits for now.
func (f *folder) resolve(ctx context.Context, tx pgx.Tx, c Correction, upTo int64, failure error) error {
	b := &pgx.Batch{}
	b.Queue(`delete from `+f.store.table("letters")+` where consumer = $1 and topic_id = $2 and partition = $3 and key = $4 and "offset" < $5 and reason <> 'void'`,
		c.Consumer, c.TopicID, c.Partition, []byte(c.Stream), upTo)
	if failure == nil {
		b.Queue(`delete from `+f.store.table("parked")+` where consumer = $1 and topic = $2 and partition = $3 and key = $4`, c.Consumer, c.Topic, c.Partition, []byte(c.Stream))
	} else {
		fate := deadletter.FateOf(failure)
		b.Queue(`update `+f.store.table("parked")+` set first_offset = $5, letters = (select count(*) from `+f.store.table("letters")+` l where l.consumer = $1 and l.topic = $2 and l.partition = $3 and l.key = $4 and l.reason <> 'void') where consumer = $1 and topic = $2 and partition = $3 and key = $4`, c.Consumer, c.Topic, c.Partition, []byte(c.Stream), upTo)
		b.Queue(`update `+f.store.table("letters")+` set reason = $6, stage = $7, class = $8, message = $9 where consumer = $1 and topic_id = $2 and partition = $3 and key = $4 and "offset" = $5`,
			c.Consumer, c.TopicID, c.Partition, []byte(c.Stream), upTo, string(deadletter.ReasonFailed), string(fate.Stage), fate.Class, deadletter.CleanText(failure.Error(), deadletter.MessageBytesMax))
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("resolve letters: %w", err)
	}
	return nil
}

// PositionReport is a partition that was, or would be, set.
type PositionReport struct {
	Place
	Before int64 `json:"before"`
}

// SetPosition makes a version go on at another offset of one partition, on record in the audit topic.
// Backwards, events at or below a stream's last version are skipped, so that none counts twice;
// forwards, what lies between is left out, and a stream with events there stops the partition at its
// next one: use Skip for single events. Without execute it is only shown.
func (o *Operator) SetPosition(ctx context.Context, name string, number int, to Place, execute bool) (PositionReport, error) {
	report := PositionReport{Place: to}
	v, view, err := o.known(ctx, name, number)
	if err != nil {
		return report, err
	}
	if _, err := o.source(view, &report.Place); err != nil {
		return report, err
	}
	p := place{report.Topic, report.Partition}
	ends, err := o.ends(ctx, []place{p})
	if err != nil {
		return report, err
	}
	if end, there := ends[p]; !there || to.Offset < 0 || to.Offset > end {
		return report, fmt.Errorf("%s[%d] ends at offset %d, %d is not in it: %w", p.topic, p.partition, end, to.Offset, ErrNothing)
	}
	next, _, err := o.cutOf(ctx, o.cfg.Pool, v.consumer(), "")
	report.Before = next[p]
	if err != nil || !execute {
		return report, err
	}
	return report, o.withHeld(ctx, "position", v, view, func(f *folder) error {
		return pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `update `+o.table("offsets")+` set epoch = epoch + 1, next_offset = $4, claim_producer_id = null, claim_epoch = null, last_event_id = '', updated_at = now()
				where consumer = $1 and topic = $2 and partition = $3`, v.consumer(), p.topic, p.partition, to.Offset)
			if err != nil {
				return fmt.Errorf("set the position: %w", err)
			}
			return o.trail.write(ctx, "view.position", v.consumer(), map[string]any{"topic": p.topic, "partition": p.partition, "before": f.workers[p].at.next, "offset": to.Offset})
		})
	})
}
