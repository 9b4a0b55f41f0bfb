package projector

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Operator is what people do to views beside folding them: it builds a version beside the live
// one, compares the two at one cut, switches readers over and back, and drops what is no longer
// wanted (DESIGN §6; PROTOCOL P5). Projectors may run all the while, here or elsewhere: they leave
// a version alone that an Operator holds.
//
// Its methods may be called from any goroutine. Of two tools that want one version for themselves,
// the second gets ErrBusy.
type Operator struct {
	cfg     OperatorConfig
	metrics *metrics // nobody reads them
	client  *kgo.Client
	adm     *kadm.Client
	trail   *trail
}

// OperatorConfig of an Operator.
type OperatorConfig struct {
	// Config is as a projector has it. Views are the versions that this program can fold.
	Config
	// Actor is who asks, for the audit topic. Required.
	Actor string
	// Progress is told about long work, at most once a second and at each change of phase, from
	// one goroutine at a time. Nil: nobody is told.
	Progress func(Progress)
	// LeaseTime is how long a version stays held by a tool that has died; default 15 s. A rebuild
	// holds its version until it is finished or the version is dropped.
	LeaseTime time.Duration
	// CatchUpTimeout bounds waiting for one version to come up to another; default 1 min.
	CatchUpTimeout time.Duration
}

// Errors of an Operator.
var (
	// ErrNoView: there is no such view, or no such version of it.
	ErrNoView = errors.New("no such view")
	// ErrNotFolded: the program does not have the code of this version.
	ErrNotFolded = errors.New("this program does not have that version of the view")
	// ErrLive: the version is the one that readers see.
	ErrLive = errors.New("that version is live")
	// ErrBusy: another tool works on the version.
	ErrBusy = errors.New("another tool works on this version of the view")
	// ErrRebuilding: a rebuild of the version was begun and is not finished.
	ErrRebuilding = errors.New("a rebuild of this version is not finished: finish it, or drop the version")
	// ErrBehind: a version is not as far as it has to be, and does not get there.
	ErrBehind = errors.New("the version is behind")
	// ErrDifferent: two versions differ, and nobody accepted that.
	ErrDifferent = errors.New("the versions differ")
)

// NewOperator connects to nothing yet. Close releases what it holds.
func NewOperator(cfg OperatorConfig) (*Operator, error) {
	cfg.Config = cfg.withDefaults()
	setDefault(&cfg.LeaseTime, 15*time.Second)
	setDefault(&cfg.CatchUpTimeout, time.Minute)
	if cfg.Progress == nil {
		cfg.Progress = func(Progress) {}
	}
	if cfg.Actor == "" {
		return nil, errors.New("operator config: Actor is empty")
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		return nil, fmt.Errorf("operator metrics: %w", err)
	}
	client, err := kgo.NewClient(append(slices.Clone(cfg.Kafka), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return nil, fmt.Errorf("operator: Kafka client: %w", err)
	}
	return &Operator{
		cfg: cfg, metrics: m, client: client, adm: kadm.NewClient(client),
		trail: &trail{client: client, topic: topics.Audit(cfg.Namespace), actor: cfg.Actor, clock: cfg.Clock},
	}, nil
}

// Close releases the connections to Kafka.
func (o *Operator) Close() { o.client.Close() }

func (o *Operator) table(name string) string { return quote(o.cfg.Namespace, name) }

// view is a version that this program can fold.
func (o *Operator) view(name string, version int) (projection.View, error) {
	for _, v := range o.cfg.views() {
		if v.Name == name && v.Version == version {
			return v, nil
		}
	}
	return projection.View{}, fmt.Errorf("view %s.v%d: %w", name, version, ErrNotFolded)
}

// store makes the statements of one version.
func (o *Operator) store(v projection.View) (*store, error) {
	return newStore(o.cfg.Pool, o.cfg.Namespace, topics.ConsumerView(v.Name, v.Version), v)
}

// version is a version as Postgres knows it.
type version struct {
	name     string
	number   int
	live     bool
	dropped  bool
	replaced *int
	shape    shape
}

// shape is what a definition says of a version's rows; it is enough to read them.
type shape struct {
	Kind       projection.Kind
	Categories []string
	Key        []projection.Column
	Columns    []projection.Column
}

func (v version) view() projection.View {
	return projection.View{Name: v.name, Version: v.number, Kind: v.shape.Kind, Categories: v.shape.Categories, Key: v.shape.Key, Columns: v.shape.Columns}
}

func (v version) label() string { return v.name + ".v" + strconv.Itoa(v.number) }

func (v version) consumer() string { return topics.ConsumerView(v.name, v.number) }

// versions reads those of one view, or of all when name is empty, by name and number.
func (o *Operator) versions(ctx context.Context, db querier, name string) ([]version, error) {
	rows, err := db.Query(ctx, `select name, version, definition, live, dropped, replaced from `+o.table("views")+` where $1 = '' or name = $1 order by name, version`, name)
	if err != nil {
		return nil, fmt.Errorf("read the versions of views: %w", err)
	}
	var all []version
	var v version
	var definition string
	_, err = pgx.ForEachRow(rows, []any{&v.name, &v.number, &definition, &v.live, &v.dropped, &v.replaced}, func() error {
		v.shape = shape{}
		if err := json.Unmarshal([]byte(definition), &v.shape); err != nil {
			return fmt.Errorf("definition of %s: %w", v.label(), err)
		}
		all = append(all, v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the versions of views: %w", err)
	}
	if len(all) == 0 && name != "" {
		return nil, fmt.Errorf("view %s: %w in namespace %s", name, ErrNoView, o.cfg.Namespace)
	}
	return all, nil
}

// find picks a version; 0 is the live one.
func find(all []version, number int) (version, error) {
	for _, v := range all {
		if v.number == number || (number == 0 && v.live) {
			return v, nil
		}
	}
	if number == 0 {
		return version{}, fmt.Errorf("view %s has no live version: %w", all[0].name, ErrNoView)
	}
	return version{}, fmt.Errorf("view %s.v%d: %w", all[0].name, number, ErrNoView)
}

// places lists the partitions that feed a version, in order.
func (o *Operator) places(ctx context.Context, v projection.View) ([]place, map[string]topics.Info, error) {
	c := newConsumer(&o.cfg.Config, v, o.metrics)
	names := make([]string, 0, len(c.categories))
	for topic := range c.categories {
		names = append(names, topic)
	}
	infos, err := topics.IDs(ctx, o.adm, names...)
	if err != nil {
		return nil, nil, fmt.Errorf("read topic ids: %w", err)
	}
	var all []place
	for topic, info := range infos {
		for p := range info.Partitions {
			all = append(all, place{topic, p})
		}
	}
	slices.SortFunc(all, comparePlaces)
	return all, infos, nil
}

// ends are the high watermarks of partitions.
func (o *Operator) ends(ctx context.Context, places []place) (map[place]int64, error) {
	listed, err := o.adm.ListEndOffsets(ctx, topicsOf(places)...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read log ends: %w", err)
	}
	return offsetsOf(listed, places), nil
}

func offsetsOf(listed kadm.ListedOffsets, places []place) map[place]int64 {
	out := make(map[place]int64, len(places))
	for _, p := range places {
		if o, ok := listed.Lookup(p.topic, p.partition); ok {
			out[p] = o.Offset
		}
	}
	return out
}

func topicsOf(places []place) []string {
	var names []string
	for _, p := range places {
		names = append(names, p.topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// cutOf reads how far a consumer is, and the ids of the topics it read.
func (o *Operator) cutOf(ctx context.Context, db querier, consumer string, suffix string) (next map[place]int64, ids map[string]string, err error) {
	rows, err := db.Query(ctx, `select topic, partition, next_offset, topic_id from `+o.table("offsets")+` where consumer = $1 order by topic, partition`+suffix, consumer)
	if err != nil {
		return nil, nil, fmt.Errorf("read the offsets of %s: %w", consumer, err)
	}
	next, ids = map[place]int64{}, map[string]string{}
	var p place
	var at int64
	var id string
	_, err = pgx.ForEachRow(rows, []any{&p.topic, &p.partition, &at, &id}, func() error {
		next[p] = at
		if id != "" {
			ids[p.topic] = id
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the offsets of %s: %w", consumer, err)
	}
	return next, ids, nil
}

// behind counts the records that a is before b; a partition that was not read counts from 0.
func behind(a, b map[place]int64) (records int64) {
	for p, want := range b {
		have := int64(0)
		if at, ok := a[p]; ok {
			have = max(0, at)
		}
		records += max(0, want-have)
	}
	return records
}

// hold is a version that this process has for itself.
type hold struct {
	o        *Operator
	consumer string
	holder   string
	conn     *pgxpool.Conn // its session's lock tells two tools apart
	key      int64
	stop     context.CancelFunc
	ended    chan struct{}
}

// holding takes a version from its projectors. With a lease it is theirs again soon after this
// process dies; without, it stays held.
func (o *Operator) holding(ctx context.Context, consumer, tool string, lease bool) (*hold, error) {
	conn, err := o.cfg.Pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	hash := fnv.New64a()
	hash.Write([]byte("foldstream.hold\x00" + o.cfg.Namespace + "\x00" + consumer))
	h := &hold{o: o, consumer: consumer, holder: tool + " " + token(), conn: conn, key: int64(hash.Sum64()), ended: make(chan struct{})}
	var free bool
	if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1)", h.key).Scan(&free); err != nil || !free {
		conn.Release()
		return nil, cmp.Or(err, fmt.Errorf("%s: %w", consumer, ErrBusy))
	}
	until := "null"
	if lease {
		until = o.leaseEnd()
	}
	_, err = conn.Exec(ctx, `insert into `+o.table("controls")+` as c (consumer, held_by, held_until, generation) values ($1, $2, `+until+`, 1)
		on conflict (consumer) do update set held_by = excluded.held_by, held_until = excluded.held_until, generation = c.generation + 1`, consumer, h.holder)
	if err != nil {
		h.unlock(ctx)
		return nil, fmt.Errorf("hold %s: %w", consumer, err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop = stop
	go h.renew(renewing, lease)
	return h, nil
}

func token() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (o *Operator) leaseEnd() string {
	return fmt.Sprintf("clock_timestamp() + interval '%d milliseconds'", o.cfg.LeaseTime.Milliseconds())
}

func (h *hold) renew(ctx context.Context, lease bool) {
	defer close(h.ended)
	for lease && pause(ctx, h.o.cfg.LeaseTime/4) {
		_, err := h.o.cfg.Pool.Exec(ctx, `update `+h.o.table("controls")+` set held_until = `+h.o.leaseEnd()+` where consumer = $1 and held_by = $2`, h.consumer, h.holder)
		if err != nil && ctx.Err() == nil {
			h.o.cfg.Logger.Warn("the hold on a view was not renewed, trying again", "consumer", h.consumer, "error", err)
		}
	}
}

// keep ends this process's part, but leaves the version held: somebody will go on.
func (h *hold) keep(ctx context.Context) {
	h.stop()
	<-h.ended
	h.unlock(ctx)
}

// giveBack lets the projectors go on. Their sessions begin anew, since the generation is another.
func (h *hold) giveBack(ctx context.Context) error {
	h.stop()
	<-h.ended
	ctx = context.WithoutCancel(ctx)
	defer h.unlock(ctx)
	_, err := h.o.cfg.Pool.Exec(ctx, `update `+h.o.table("controls")+` set held_by = '', held_until = null, generation = generation + 1 where consumer = $1 and held_by = $2`, h.consumer, h.holder)
	if err != nil {
		return fmt.Errorf("give %s back to its projectors: %w", h.consumer, err)
	}
	return nil
}

func (h *hold) unlock(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if _, err := h.conn.Exec(ctx, "select pg_advisory_unlock($1)", h.key); err != nil {
		_ = h.conn.Conn().Close(ctx) // the session's end frees it
	}
	h.conn.Release()
}

// rebuilding says whether a rebuild of a version was begun and is not finished.
func (o *Operator) rebuilding(ctx context.Context, consumer string) (bool, error) {
	var begun bool
	err := o.cfg.Pool.QueryRow(ctx, `select exists (select from `+o.table("rebuilds")+` where consumer = $1)`, consumer).Scan(&begun)
	if err != nil {
		return false, fmt.Errorf("read the rebuilds: %w", err)
	}
	return begun, nil
}
