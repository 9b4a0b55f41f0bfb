package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits of the embedded broker's log. It reads every segment whole into
// memory when it opens, so that its log must fit there.
const (
	embeddedLogAlarmBytes = 3 << 30
	embeddedLogMaxBytes   = 5 << 30

	embeddedLogCheckEvery = 10 * time.Second
)

const embeddedRemedy = "delete topics, begin with a new data directory, or run Apache Kafka (--kafka jvm, or a broker of your own)"

// EmbeddedConfig describes the embedded broker, which is franz-go's broker in
// Go: one node, for development, without a guarantee against a loss of power.
type EmbeddedConfig struct {
	// DataDir keeps the log across restarts. Empty: in memory, gone at Stop.
	DataDir string
	// LogAlarmBytes is the size of the log above which every check warns,
	// 3 GiB by default.
	LogAlarmBytes int64
	// LogMaxBytes is the size above which the broker refuses to open a log,
	// and refuses records (POLICY_VIOLATION) while it runs, 5 GiB by default.
	LogMaxBytes int64
	// LogCheckEvery is the time between two checks of the size, 10 s by
	// default.
	LogCheckEvery time.Duration
	// Logger hears of the log's size and of what the broker could not write.
	// Default: silent.
	Logger *slog.Logger
}

func (c EmbeddedConfig) withDefaults() EmbeddedConfig {
	if c.LogAlarmBytes == 0 {
		c.LogAlarmBytes = embeddedLogAlarmBytes
	}
	if c.LogMaxBytes == 0 {
		c.LogMaxBytes = embeddedLogMaxBytes
	}
	if c.LogCheckEvery == 0 {
		c.LogCheckEvery = embeddedLogCheckEvery
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c EmbeddedConfig) validate() error {
	var faults []error
	if c.LogAlarmBytes < 0 || c.LogMaxBytes < c.LogAlarmBytes {
		faults = append(faults, fmt.Errorf("LogAlarmBytes is %d and LogMaxBytes %d; they must be positive and in this order",
			c.LogAlarmBytes, c.LogMaxBytes))
	}
	if c.LogCheckEvery < 0 {
		faults = append(faults, fmt.Errorf("LogCheckEvery is %s; it must be positive", c.LogCheckEvery))
	}
	return errors.Join(faults...)
}

// Embedded is a running embedded broker.
type Embedded struct {
	cfg       EmbeddedConfig
	cluster   *kfake.Cluster
	addresses []string
	client    *kgo.Client // for the size of the log
	lock      *dirLock    // nil in memory

	stop     context.CancelFunc
	watching sync.WaitGroup
	stopOnce sync.Once

	mu      sync.Mutex
	full    bool // records are refused
	refuser bool // the refusal is installed in the cluster
}

// StartEmbedded starts the broker; it serves when this returns. A data
// directory that was used before keeps its data and, when it is free, its
// port. Errors wrap [ErrInUse] or [ErrLogTooLarge] where they apply.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	e := &Embedded{cfg: cfg}
	if err := e.open(ctx); err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	return e, nil
}

func (e *Embedded) open(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.cfg.DataDir != "" {
		if e.lock, err = lockDataDir(e.cfg.DataDir, "the embedded broker"); err != nil {
			return err
		}
	}
	if err = e.openCluster(); err != nil {
		e.release()
		return err
	}
	if e.client, err = kgo.NewClient(kgo.SeedBrokers(e.Brokers()...)); err != nil {
		e.cluster.Close()
		e.release()
		return fmt.Errorf("make a client: %w", err)
	}
	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = cancel
	e.watching.Go(func() { e.watchLog(watchCtx) })
	return nil
}

func (e *Embedded) openCluster() error {
	if e.cfg.DataDir == "" {
		return e.newCluster(0, newClusterID())
	}
	size, err := logBytesOnDisk(e.logDir())
	if err != nil {
		return err
	}
	if size > e.cfg.LogMaxBytes {
		return fmt.Errorf("%w: %s holds %d bytes, the limit is %d: %s",
			ErrLogTooLarge, e.logDir(), size, e.cfg.LogMaxBytes, embeddedRemedy)
	}
	var last embeddedIdentity
	if err := readJSON(e.identityFile(), &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if last.ClusterID == "" {
		last.ClusterID = newClusterID()
	}
	err = e.newCluster(last.Port, last.ClusterID)
	if errors.Is(err, syscall.EADDRINUSE) {
		e.cfg.Logger.Warn("the port of the last run is taken; the broker gets another", "port", last.Port)
		err = e.newCluster(0, last.ClusterID)
	}
	if err != nil {
		return err
	}
	last.Port = portOf(e.Brokers()[0])
	return writeJSON(e.identityFile(), last, 0o644)
}

// embeddedIdentity is broker.json in the data directory: clients may keep the
// address across restarts.
type embeddedIdentity struct {
	Port      int    `json:"port"`
	ClusterID string `json:"cluster_id"`
}

func (e *Embedded) identityFile() string { return filepath.Join(e.cfg.DataDir, "broker.json") }

func (e *Embedded) logDir() string { return filepath.Join(e.cfg.DataDir, "log") }

func (e *Embedded) newCluster(port int, clusterID string) error {
	opts := []kfake.Opt{
		kfake.Ports(port),
		kfake.ClusterID(clusterID),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.WithLogger(kfakeLogger{e.cfg.Logger}),
		// The default of a week would hit every topic without a setting of
		// its own as soon as one topic has one.
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1"}),
	}
	if e.cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(e.logDir()))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	// Asked once: a closed cluster never answers this.
	e.cluster, e.addresses = cluster, cluster.ListenAddrs()
	return nil
}

// Brokers is the address to bootstrap from, host:port.
func (e *Embedded) Brokers() []string { return slices.Clone(e.addresses) }

// Stop writes what is in memory to the data directory and frees it. Stopping
// twice is harmless.
func (e *Embedded) Stop() error {
	e.stopOnce.Do(func() {
		e.stop()
		e.watching.Wait()
		e.client.Close()
		e.cluster.Close()
		e.release()
	})
	return nil
}

func (e *Embedded) release() {
	if e.lock != nil {
		e.lock.release()
	}
}

// watchLog checks the size of the log until ctx ends.
func (e *Embedded) watchLog(ctx context.Context) {
	tick := time.NewTicker(e.cfg.LogCheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		size, err := e.logBytes(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.cfg.Logger.Warn("the size of the log is not known", "error", err)
			}
			continue
		}
		e.judge(size)
	}
}

// logBytes is the size of all partitions' logs.
func (e *Embedded) logBytes(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readyRequestTimeout)
	defer cancel()
	dirs, err := kadm.NewClient(e.client).DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return 0, err
	}
	var size int64
	dirs.Each(func(d kadm.DescribedLogDir) { size += d.Size() })
	return size, nil
}

// judge warns of a large log, and refuses records to one that would not open
// again.
func (e *Embedded) judge(size int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.full = size > e.cfg.LogMaxBytes
	switch {
	case e.full:
		e.cfg.Logger.Error("the log is full; records are refused", "bytes", size, "bytes_max", e.cfg.LogMaxBytes,
			"remedy", embeddedRemedy)
	case size > e.cfg.LogAlarmBytes:
		e.cfg.Logger.Warn("the log is large for the embedded broker, which holds it in memory", "bytes", size,
			"bytes_max", e.cfg.LogMaxBytes, "remedy", embeddedRemedy)
	}
	// A hook costs every request something, so it is there from the first
	// need on only.
	if e.full && !e.refuser {
		e.refuser = true
		e.cluster.ControlKey(int16(kmsg.Produce), e.refuse)
	}
}

func (e *Embedded) refuse(request kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // the broker's signature
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.full {
		return nil, nil, false
	}
	e.cluster.KeepControl()
	return refusal(request.(*kmsg.ProduceRequest)), nil, true
}

// refusal answers every partition of a request alike.
func refusal(request *kmsg.ProduceRequest) kmsg.Response {
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	message := "the embedded broker's log is full: " + embeddedRemedy
	for _, topic := range request.Topics {
		answered := kmsg.NewProduceResponseTopic()
		answered.Topic, answered.TopicID = topic.Topic, topic.TopicID
		for _, partition := range topic.Partitions {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.ErrorCode, p.ErrorMessage = partition.Partition, kerr.PolicyViolation.Code, &message
			answered.Partitions = append(answered.Partitions, p)
		}
		response.Topics = append(response.Topics, answered)
	}
	return response
}

// logBytesOnDisk counts the segments before they are opened, which is when the
// broker would read them all.
func logBytesOnDisk(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(entry.Name(), ".dat") {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("measure the log in %s: %w", dir, err)
	}
	return size, nil
}

// kfakeLogger passes on what the broker warns of; it is chatty below that.
type kfakeLogger struct{ log *slog.Logger }

func (l kfakeLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("embedded broker: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("embedded broker: " + fmt.Sprintf(format, args...))
	}
}
