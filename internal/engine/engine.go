package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// Config of an Engine. The zero value of a field means its default.
type Config struct {
	Namespace  string
	Categories []Category
	// Consumer names the engine among the consumers: its group is <namespace>.<consumer>, its
	// dead-letter topic <namespace>.dlq.<consumer>. Default "ingest".
	Consumer string
	// Group is derived from namespace and consumer; set only by tests.
	Group string
	// Instance names this process in claims; default host and process id.
	Instance string
	// Kafka connects all clients (seeds, TLS, SASL).
	Kafka []kgo.Opt
	// Registry looks schemas up.
	Registry codec.Reader
	// SessionTimeout is after how long without heartbeat the group gives a dead instance's
	// partitions away; default 6 s. Shorter makes a failover faster and a long pause fatal.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often the group is told that this instance lives; default a
	// twenty-fourth of SessionTimeout, 250 ms. Members learn of a planned hand-over by it, so it is
	// most of the pause of one.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long a rebalance waits for a member to come back; default
	// SessionTimeout + RevokeDrainMax + 2 s, 10 s. A member finishes what is under way and commits
	// before it comes back, so less would put living ones out; more makes one that dies while it
	// joins hold the others up for as long.
	RebalanceTimeout time.Duration
	// InFlightMax bounds the commands of a partition that are appended but not acknowledged; default 4096.
	InFlightMax int
	// InboxRecordsMax and InboxBytesMax bound the fetched commands of a partition that are not taken
	// up yet: at either the partition's fetch pauses. Defaults 20,000 and 16 MiB.
	InboxRecordsMax int
	InboxBytesMax   int
	// BatchBytesMax bounds one record batch; default 900 KiB. It must be below the events topics'
	// max.message.bytes. A command whose events do not fit is invalid.
	BatchBytesMax int
	// StateBytesMax bounds the memory of all streams' states and windows; default 1 GiB. Beyond it
	// new streams are refused.
	StateBytesMax int64
	// CommitInterval is how often group offsets are committed; default 500 ms. Longer makes a
	// successor answer more commands again.
	CommitInterval time.Duration
	// RevokeDrainMax is how long a partition that is given away may take to finish what is under
	// way (PROTOCOL W8); default 2 s.
	RevokeDrainMax time.Duration
	// TakeOversMax bounds the partitions that are recovered at the same time; default 8.
	TakeOversMax int
	// TransactionalIDExpiration and ProducerIDExpiration are the broker's settings, for brokers that
	// do not let us read them; defaults 7 d and 1 d, Kafka's.
	TransactionalIDExpiration time.Duration
	ProducerIDExpiration      time.Duration
	// OnOutcome, when set, is told each outcome before its reply leaves; it must not block. For tests.
	OnOutcome  func(category string, partition int32, offset int64, o Outcome)
	Registerer prometheus.Registerer // default: a registry of its own
	Logger     *slog.Logger          // default slog.Default()
	Clock      func() time.Time      // default time.Now
}

func (c Config) withDefaults() Config {
	def(&c.Consumer, topics.ConsumerIngest)
	if c.Group == "" {
		c.Group = topics.Group(c.Namespace, c.Consumer)
	}
	if c.Instance == "" {
		host, _ := os.Hostname()
		c.Instance = host + "-" + strconv.Itoa(os.Getpid())
	}
	def(&c.SessionTimeout, 6*time.Second)
	def(&c.HeartbeatInterval, min(c.SessionTimeout/24, time.Second))
	def(&c.InFlightMax, 4096)
	def(&c.InboxRecordsMax, 20_000)
	def(&c.InboxBytesMax, 16<<20)
	def(&c.BatchBytesMax, 900<<10)
	def(&c.StateBytesMax, 1<<30)
	def(&c.CommitInterval, 500*time.Millisecond)
	def(&c.RevokeDrainMax, 2*time.Second)
	def(&c.TakeOversMax, 8)
	def(&c.RebalanceTimeout, c.SessionTimeout+c.RevokeDrainMax+rebalanceSlack)
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

// rebalanceSlack is for the last commit and the way back into the group.
const rebalanceSlack = 2 * time.Second

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("engine: "+format, args...)) }
	if c.Namespace == "" {
		fault("Namespace is empty")
	}
	if len(c.Categories) == 0 {
		fault("no category to serve: a project needs one in mode append or decider")
	}
	if c.Registry == nil {
		fault("Registry is nil")
	}
	if c.SessionTimeout < time.Second || c.SessionTimeout > 5*time.Minute {
		fault("SessionTimeout %s is not within 1 s and 5 min", c.SessionTimeout)
	}
	if c.HeartbeatInterval <= 0 || c.HeartbeatInterval*2 > c.SessionTimeout {
		fault("HeartbeatInterval %s must be positive and at most half of SessionTimeout %s", c.HeartbeatInterval, c.SessionTimeout)
	}
	if c.RebalanceTimeout <= c.RevokeDrainMax {
		fault("RebalanceTimeout %s must be above RevokeDrainMax %s, which is spent before a member comes back", c.RebalanceTimeout, c.RevokeDrainMax)
	}
	if c.BatchBytesMax < 4<<10 {
		fault("BatchBytesMax %d is below 4 KiB", c.BatchBytesMax)
	}
	for name, n := range map[string]int{"InFlightMax": c.InFlightMax, "InboxRecordsMax": c.InboxRecordsMax, "InboxBytesMax": c.InboxBytesMax, "TakeOversMax": c.TakeOversMax} {
		if n < 1 {
			fault("%s %d is below 1", name, n)
		}
	}
	seen := map[string]bool{}
	for _, category := range c.Categories {
		if seen[category.Name] {
			fault("category %s stands twice", category.Name)
		}
		seen[category.Name] = true
	}
	return errors.Join(faults...)
}

// Fetch settings of all consumers here.
const (
	fetchMaxWait           = 100 * time.Millisecond // a partition that is taken up again waits for it
	fetchBytesMax          = 16 << 20
	fetchPartitionBytesMax = 2 << 20
	pollRecordsMax         = 5_000
	offsetsTimeout         = 10 * time.Second
	bindTimeout            = 30 * time.Second
)

// Engine serves the partitions that its consumer group assigns here. New checks everything and
// connects; Run serves.
type Engine struct {
	cfg        Config
	log        *slog.Logger
	metrics    *metrics
	budget     *stateBudget
	admission  admission
	lettered   lettered
	categories map[string]*boundCategory // by commands topic
	ownTopics  map[string]ownedTopics    // by commands topic
	counts     map[string]int32          // partitions, by commands topic
	snapshots  *snapshot.Format
	replyTo    *codec.Binding
	appendEnv  *codec.Binding
	limits     renewalLimits

	group    *kgo.Client
	direct   *kgo.Client
	admin    *kadm.Client
	reader   *logReader
	appender *appender.Appender
	outbox   *outbox
	pacer    *pacer
	slots    chan struct{}

	committing sync.Mutex // one commit at a time; before mu

	mu     sync.Mutex
	owners map[topicPartition]*owner
	paused map[topicPartition]bool
	joined atomic.Bool
	stop   context.CancelCauseFunc
	ctx    context.Context // of all owners; ends after the drain
	cancel context.CancelFunc
}

// New checks the configuration, binds types to schemas, and looks the topics up. It fails with a
// *topics.MissingError where topics are missing. ctx bounds the construction only.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, log: cfg.Logger.With("component", cfg.Consumer), budget: &stateBudget{bytesMax: cfg.StateBytesMax},
		categories: map[string]*boundCategory{}, ownTopics: map[string]ownedTopics{}, counts: map[string]int32{},
		owners: map[topicPartition]*owner{}, paused: map[topicPartition]bool{}, slots: make(chan struct{}, cfg.TakeOversMax),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := e.build(ctx); err != nil {
		e.close(context.Background())
		return nil, err
	}
	return e, nil
}

func (e *Engine) build(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	var err error
	if e.metrics, err = newMetrics(e.cfg.Registerer, e.budget); err != nil {
		return err
	}
	if err := e.bind(ctx); err != nil {
		return err
	}
	if e.direct, err = kgo.NewClient(e.cfg.Kafka...); err != nil {
		return err
	}
	e.admin = kadm.NewClient(e.direct)
	factor, err := e.lookUpTopics(ctx)
	if err != nil {
		return err
	}
	e.limits = e.readLimits(ctx)
	if e.reader, err = newLogReader(e.cfg.Kafka); err != nil {
		return err
	}
	e.outbox, err = newOutbox(e.ctx, e.cfg.Kafka, e.replyTo, topics.DeadLetters(e.cfg.Namespace, e.cfg.Consumer), e.cfg.Consumer, e.cfg.Namespace, e.cfg.Clock, e.log)
	if err != nil {
		return err
	}
	e.pacer = e.outbox.pacer
	e.appender, err = appender.New(appender.Config{
		Opts: e.cfg.Kafka, BatchBytesMax: e.cfg.BatchBytesMax, ProveByListOffsets: factor == 1,
		RetryAgeMax: min(time.Hour, e.limits.keepaliveAfter*2), Logger: e.log, Observe: e.metrics, Clock: e.cfg.Clock,
		AnswerBegins: e.pacer.begin, AnswerEnds: e.pacer.end,
	})
	return err
}

func (e *Engine) bind(ctx context.Context) error {
	cdc := codec.New(e.cfg.Registry, codec.Config{})
	var faults []error
	var err error
	if e.replyTo, err = cdc.Bind(ctx, codec.ReplyDef()); err != nil {
		faults = append(faults, err)
	}
	if e.appendEnv, err = cdc.Bind(ctx, codec.AppendDef()); err != nil {
		faults = append(faults, err)
	}
	if e.snapshots, err = snapshot.NewFormat(ctx, cdc); err != nil {
		faults = append(faults, err)
	}
	for _, c := range e.cfg.Categories {
		bound, err := bindCategory(ctx, e.cfg.Namespace, c, cdc)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		e.categories[topics.Commands(e.cfg.Namespace, c.Name)] = bound
	}
	return errors.Join(faults...)
}

// lookUpTopics learns ids and partition counts, and returns the highest replication factor.
func (e *Engine) lookUpTopics(ctx context.Context) (int, error) {
	names := []string{topics.DeadLetters(e.cfg.Namespace, e.cfg.Consumer), topics.Replies(e.cfg.Namespace)}
	for _, c := range e.cfg.Categories {
		names = append(names, topics.Commands(e.cfg.Namespace, c.Name), topics.Events(e.cfg.Namespace, c.Name), topics.Snapshots(e.cfg.Namespace, c.Name))
	}
	infos, err := topics.IDs(ctx, e.admin, names...)
	if err != nil {
		return 0, err
	}
	factor := 1
	for _, c := range e.cfg.Categories {
		commands, events := topics.Commands(e.cfg.Namespace, c.Name), topics.Events(e.cfg.Namespace, c.Name)
		if have, want := infos[commands].Partitions, infos[events].Partitions; have != want {
			return 0, fmt.Errorf("%s has %d partitions and %s %d: they must be equal, since a stream's command and event partition are one; see `foldstream topics plan`", commands, have, events, want)
		}
		snapshots := topics.Snapshots(e.cfg.Namespace, c.Name)
		if have, want := infos[snapshots].Partitions, infos[events].Partitions; have != want {
			return 0, fmt.Errorf("%s has %d partitions and %s %d: they must be equal; see `foldstream topics plan`", snapshots, have, events, want)
		}
		e.ownTopics[commands] = ownedTopics{
			commands: commands, events: events, snapshots: snapshots,
			commandsID: infos[commands].ID, eventsID: infos[events].ID, snapshotsID: infos[snapshots].ID,
		}
		e.counts[commands] = infos[commands].Partitions
		factor = max(factor, infos[events].ReplicationFactor)
	}
	return factor, nil
}

// readLimits reads the two expirations from the broker, where it lets us (W3).
func (e *Engine) readLimits(ctx context.Context) renewalLimits {
	transactional, producer := e.cfg.TransactionalIDExpiration, e.cfg.ProducerIDExpiration
	configs, err := e.brokerConfigs(ctx)
	if err != nil {
		e.log.Debug("broker settings cannot be read, using configured ones", "cause", err)
	}
	def(&transactional, configs["transactional.id.expiration.ms"])
	def(&producer, configs["producer.id.expiration.ms"])
	def(&transactional, transactionalIDExpirationDefault)
	def(&producer, producerIDExpirationDefault)
	return renewalLimits{renewAfter: transactional / 4, keepaliveAfter: producer / 4}
}

func (e *Engine) brokerConfigs(ctx context.Context) (map[string]time.Duration, error) {
	found := map[string]time.Duration{}
	brokers, err := e.admin.ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return found, err
	}
	configs, err := e.admin.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	if err != nil {
		return found, err
	}
	for _, resource := range configs {
		for _, c := range resource.Configs {
			if c.Value == nil {
				continue
			}
			if ms, err := strconv.ParseInt(*c.Value, 10, 64); err == nil && (c.Key == "transactional.id.expiration.ms" || c.Key == "producer.id.expiration.ms") {
				found[c.Key] = time.Duration(ms) * time.Millisecond
			}
		}
	}
	return found, nil
}

// Run serves until ctx ends, then gives the partitions back in order: finish what is under way,
// commit, leave. It returns the error that stopped the service, or nil. Call it once.
func (e *Engine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	e.stop = stop
	defer stop(nil)
	if err := e.join(); err != nil {
		e.close(context.Background())
		return err
	}
	var wg sync.WaitGroup
	background, cancel := context.WithCancel(context.Background())
	wg.Go(func() { e.reader.run(background) })
	wg.Go(func() { e.watchTopics(background) })
	committing, stopCommitting := context.WithCancel(background)
	wg.Go(func() { e.commitLoop(committing) })
	e.pollLoop(ctx)
	stopCommitting() // the last commit is that of leave
	e.leave()
	cancel()
	e.close(context.Background())
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

func (e *Engine) stopWith(err error) { e.stop(err) }

// join makes the group client. No static membership (W8): a stopped static member would keep its
// partitions unserved for the whole session.
func (e *Engine) join() error {
	names := make([]string, 0, len(e.categories))
	for name := range e.categories {
		names = append(names, name)
	}
	opts := append(append([]kgo.Opt{}, e.cfg.Kafka...),
		kgo.ConsumerGroup(e.cfg.Group), kgo.ConsumeTopics(names...), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(e.cfg.SessionTimeout), kgo.HeartbeatInterval(e.cfg.HeartbeatInterval), kgo.RebalanceTimeout(e.cfg.RebalanceTimeout),
		kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(fetchMaxWait), kgo.FetchMaxBytes(fetchBytesMax), kgo.FetchMaxPartitionBytes(fetchPartitionBytesMax),
		kgo.OnPartitionsAssigned(e.onAssigned), kgo.OnPartitionsRevoked(e.onRevoked), kgo.OnPartitionsLost(e.onLost),
	)
	// The client joins at once: an assignment that comes before this returns waits in onAssigned,
	// since its owners use e.group.
	e.mu.Lock()
	defer e.mu.Unlock()
	group, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("joining group %s: %w", e.cfg.Group, err)
	}
	e.group = group
	return nil
}

// onAssigned starts an owner for each partition. Its fetch stays paused until it is recovered.
func (e *Engine) onAssigned(_ context.Context, client *kgo.Client, assigned map[string][]int32) {
	client.PauseFetchPartitions(assigned)
	e.mu.Lock()
	defer e.mu.Unlock()
	for topic, partitions := range assigned {
		for _, partition := range partitions {
			o := e.newOwner(topic, partition)
			e.owners[topicPartition{topic, partition}] = o
			go o.run()
		}
	}
	e.joined.Store(true)
}

func (e *Engine) newOwner(topic string, partition int32) *owner {
	category := e.categories[topic]
	o := &owner{
		engine: e, category: category, namespace: e.cfg.Namespace, partition: partition, partitions: e.counts[topic],
		topics: e.ownTopics[topic], clock: e.cfg.Clock, budget: e.budget,
		log:     e.log.With("category", category.Name, "partition", partition),
		metrics: e.metrics.partition(category.Name, strconv.Itoa(int(partition))),
		leaving: make(chan struct{}), stopped: make(chan struct{}),
		appendBinding: e.appendEnv, batchBytesMax: e.cfg.BatchBytesMax - 1024,
	}
	o.mailbox.wake, o.mailbox.pacer = make(chan struct{}, 1), e.pacer
	o.committable.Store(-1)
	o.ctx, o.cancel = context.WithCancel(e.ctx)
	o.setState("taking over", nil)
	return o
}

// onRevoked gives partitions away (W8): what is under way has RevokeDrainMax to finish, then its
// fate is unknown to its callers; then the last commit, synchronous, while the group still counts
// us a member (W11).
func (e *Engine) onRevoked(ctx context.Context, client *kgo.Client, revoked map[string][]int32) {
	owners := e.release(revoked)
	stopOwners(owners, e.cfg.RevokeDrainMax)
	e.committing.Lock()
	defer e.committing.Unlock()
	e.commit(ctx, client, owners)
}

// onLost drops partitions that are somebody else's already: no drain, no commit (W11).
func (e *Engine) onLost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	owners := e.release(lost)
	for _, o := range owners {
		o.cancel()
	}
	stopOwners(owners, 0)
}

// release takes owners out of service.
func (e *Engine) release(partitions map[string][]int32) []*owner {
	e.mu.Lock()
	defer e.mu.Unlock()
	var owners []*owner
	for topic, list := range partitions {
		for _, partition := range list {
			tp := topicPartition{topic, partition}
			if o := e.owners[tp]; o != nil {
				owners = append(owners, o)
				delete(e.owners, tp)
			}
			delete(e.paused, tp)
		}
	}
	return owners
}

// stopOwners tells owners to leave and waits, at most drainMax, then without mercy.
func stopOwners(owners []*owner, drainMax time.Duration) {
	for _, o := range owners {
		close(o.leaving)
	}
	timer := time.NewTimer(drainMax)
	defer timer.Stop()
	expired := false
	for _, o := range owners {
		if !expired {
			select {
			case <-o.stopped:
				continue
			case <-timer.C:
				expired = true
			}
		}
		o.cancel()
		<-o.stopped
	}
	for _, o := range owners {
		o.cancel()
		o.metrics.left()
	}
}

// pollLoop hands fetched commands to their owners, a poll as a whole.
func (e *Engine) pollLoop(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := e.group.PollRecords(ctx, pollRecordsMax)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			e.group.AllowRebalance()
			return
		}
		fetches.EachError(e.onFetchError)
		e.pacer.begin()
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				e.hand(topicPartition{p.Topic, p.Partition}, p.Records)
			}
		})
		e.pacer.end()
		e.group.AllowRebalance()
	}
}

func (e *Engine) hand(tp topicPartition, records []*kgo.Record) {
	e.mu.Lock()
	o := e.owners[tp]
	e.mu.Unlock()
	if o == nil {
		return
	}
	if o.deliver(records) {
		e.mu.Lock()
		if e.owners[tp] == o && !e.paused[tp] {
			e.paused[tp] = true
			e.group.PauseFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
		}
		e.mu.Unlock()
	}
}

// resume takes a partition's fetch up again when its owner has emptied the inbox: the distance
// between full and empty is the hysteresis, since a pause drops what the client had buffered.
func (e *Engine) resume(o *owner) {
	tp := topicPartition{o.topics.commands, o.partition}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paused[tp] && e.owners[tp] == o {
		delete(e.paused, tp)
		e.group.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
	}
}

// assigned begins the fetch of a partition that is taken over.
func (e *Engine) assigned(o *owner) {
	tp := topicPartition{o.topics.commands, o.partition}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.owners[tp] == o && !e.paused[tp] {
		e.group.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
	}
}

// onFetchError stops a partition whose commands can no longer be read in order.
func (e *Engine) onFetchError(topic string, partition int32, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	e.mu.Lock()
	o := e.owners[topicPartition{topic, partition}]
	e.mu.Unlock()
	permanent := errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
	if o == nil || !permanent {
		e.log.Warn("fetch failed; it is tried again", "topic", topic, "partition", partition, "cause", err)
		return
	}
	o.fetchFailed.Store(&topicChangedError{topic: topic, cause: err})
	o.mailbox.signal()
}

// commitLoop is the one committer of the group (W11).
func (e *Engine) commitLoop(ctx context.Context) {
	ticker := time.NewTicker(e.cfg.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		e.commitHeld(ctx)
	}
}

// commitHeld commits for the partitions that are held at this moment. Were the list older than the
// turn to commit, a partition could be given away in between, its successor commit further on, and
// this commit push the offset back (W11).
func (e *Engine) commitHeld(ctx context.Context) {
	e.committing.Lock()
	defer e.committing.Unlock()
	e.mu.Lock()
	owners := make([]*owner, 0, len(e.owners))
	for _, o := range e.owners {
		owners = append(owners, o)
	}
	e.mu.Unlock()
	e.commit(ctx, e.group, owners)
}

// commit commits what moved since the last commit. A failure is tried again at the next one. The
// caller holds committing.
func (e *Engine) commit(ctx context.Context, client *kgo.Client, owners []*owner) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	moved := map[*owner]int64{}
	for _, o := range owners {
		at := o.committable.Load()
		if at < 0 || at == o.committed.Load() {
			continue
		}
		moved[o] = at
		if offsets[o.topics.commands] == nil {
			offsets[o.topics.commands] = map[int32]kgo.EpochOffset{}
		}
		offsets[o.topics.commands][o.partition] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.SessionTimeout)
	defer cancel()
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err == nil {
			err = commitError(resp)
		}
		if err != nil {
			e.log.Warn("group offsets not committed; tried again at the next commit", "cause", err)
			return
		}
		for o, at := range moved {
			o.committed.Store(at)
		}
	})
}

func commitError(resp *kmsg.OffsetCommitResponse) error {
	for _, topic := range resp.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return fmt.Errorf("%s[%d]: %w", topic.Topic, partition.Partition, err)
			}
		}
	}
	return nil
}

// leave gives everything back: drain, commit, leave the group.
func (e *Engine) leave() {
	e.mu.Lock()
	all := map[string][]int32{}
	for tp := range e.owners {
		all[tp.topic] = append(all[tp.topic], tp.partition)
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.SessionTimeout)
	defer cancel()
	e.onRevoked(ctx, e.group, all)
	e.group.AllowRebalance()
	if err := e.group.LeaveGroupContext(ctx); err != nil {
		e.log.Warn("leaving the group failed; its partitions move after the session time-out", "cause", err)
	}
}

func (e *Engine) close(ctx context.Context) {
	if e.group != nil {
		e.group.CloseAllowingRebalance()
	}
	if e.outbox != nil {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.RevokeDrainMax)
		e.outbox.close(ctx)
		cancel()
	}
	e.cancel()
	if e.snapshots != nil {
		e.snapshots.Close()
	}
	if e.appender != nil {
		e.appender.Close()
	}
	if e.reader != nil {
		e.reader.close()
	}
	if e.direct != nil {
		e.direct.Close()
	}
}

// takeOverSlot waits for its turn to recover.
func (e *Engine) takeOverSlot(ctx context.Context) (release func(), err error) {
	select {
	case e.slots <- struct{}{}:
		return func() { <-e.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// committedOffset reads the group offset of a partition; -1 without one (D8).
func (e *Engine) committedOffset(ctx context.Context, topic string, partition int32) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, offsetsTimeout)
	defer cancel()
	offsets, err := e.admin.FetchOffsetsForTopics(ctx, e.cfg.Group, topic)
	if err != nil {
		return 0, fmt.Errorf("reading offsets of group %s: %w", e.cfg.Group, err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return -1, nil
	}
	if o.Err != nil {
		return 0, fmt.Errorf("reading offset of group %s on %s[%d]: %w", e.cfg.Group, topic, partition, o.Err)
	}
	return o.At, nil
}

// listOffsets reads a partition's start and end (high watermark).
func (e *Engine) listOffsets(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, offsetsTimeout)
	defer cancel()
	one := func(timestamp int64) (int64, error) {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, timestamp, -1
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, e.direct)
		if err != nil {
			return 0, fmt.Errorf("reading offsets of %s[%d]: %w", topic, partition, err)
		}
		for _, t := range resp.Topics {
			if len(t.Partitions) == 0 {
				continue
			}
			if err := kerr.ErrorForCode(t.Partitions[0].ErrorCode); err != nil {
				return 0, fmt.Errorf("reading offsets of %s[%d]: %w", topic, partition, err)
			}
			return t.Partitions[0].Offset, nil
		}
		return 0, fmt.Errorf("reading offsets of %s[%d]: the answer is empty", topic, partition)
	}
	both := errgroup.Group{}
	both.Go(func() (err error) { start, err = one(-2); return err })
	both.Go(func() (err error) { end, err = one(-1); return err })
	return start, end, both.Wait()
}

// Ready says why this instance does not serve all that it is assigned, or nil.
func (e *Engine) Ready() error {
	if !e.joined.Load() {
		return errors.New("not in the group yet")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var faults []error
	for tp, o := range e.owners {
		switch s := o.state.Load(); {
		case s.err != nil:
			faults = append(faults, fmt.Errorf("%s[%d] is %s: %w", tp.topic, tp.partition, s.phase, s.err))
		case s.phase != "serving":
			faults = append(faults, fmt.Errorf("%s[%d] is %s", tp.topic, tp.partition, s.phase))
		}
	}
	return errors.Join(faults...)
}

// Owned lists the partitions that are served here, by category.
func (e *Engine) Owned() map[string][]int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	owned := map[string][]int32{}
	for _, o := range e.owners {
		if o.state.Load().phase == "serving" {
			owned[o.category.Name] = append(owned[o.category.Name], o.partition)
		}
	}
	return owned
}
