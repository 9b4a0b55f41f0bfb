package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaSource reads an events topic, as a member of the subscription's group, or, for a replay,
// all partitions directly.
type kafkaSource struct {
	k        *kafkaTransport
	s        *subscription
	topic    string
	info     topics.Info
	group    string // "" for a replay
	consumer string
	client   *kgo.Client
	sink     *deadletter.Sink
}

const (
	pollMax        = 500
	sessionTimeout = 10 * time.Second
)

func (k *kafkaTransport) source(ctx context.Context, s *subscription) (source, error) {
	ns := k.c.cfg.Namespace
	src := &kafkaSource{k: k, s: s, topic: topics.Events(ns, s.cfg.Category), consumer: "sub." + s.cfg.Name}
	var err error
	if src.info, err = k.topic(ctx, src.topic); err != nil {
		return nil, err
	}
	if err := src.openSink(ctx); err != nil {
		return nil, err
	}
	if err := src.connect(ctx, topics.Group(ns, src.consumer)); err != nil {
		src.close()
		return nil, err
	}
	return src, nil
}

func (src *kafkaSource) openSink(ctx context.Context) error {
	if src.s.cfg.OnLetter != nil {
		return nil
	}
	topic := topics.DeadLetters(src.k.c.cfg.Namespace, src.consumer)
	if _, err := topics.IDs(ctx, src.k.admin, topic); err != nil {
		return fmt.Errorf("the letters' topic: name the consumer %s in the project, or set OnLetter: %w", src.consumer, err)
	}
	var err error
	src.sink, err = deadletter.NewSink(topic, src.k.c.cfg.Kafka...)
	return err
}

func (src *kafkaSource) connect(ctx context.Context, group string) error {
	opts := append(slices.Clone(src.k.c.cfg.Kafka), kgo.FetchMaxWait(500*time.Millisecond),
		// Where the log does not have the place, silence would be a lie: the subscription ends.
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()))
	cfg := src.s.cfg
	var err error
	if cfg.Replay {
		starts, err := src.resolve(ctx, cfg.From)
		if err != nil {
			return err
		}
		if !cfg.MoveCheckpoint {
			src.client, err = kgo.NewClient(append(opts, src.direct(starts))...)
			return err
		}
		if err := src.moveGroup(ctx, group, starts); err != nil {
			return err
		}
	}
	src.group = group
	src.client, err = kgo.NewClient(append(opts, src.member()...)...)
	return err
}

// direct assigns all partitions.
func (src *kafkaSource) direct(starts map[int32]int64) kgo.Opt {
	offsets := map[int32]kgo.Offset{}
	for partition, offset := range starts {
		at := place{offset: offset}
		src.s.open(partition, at, at)
		offsets[partition] = kgo.NoResetOffset().At(offset).WithEpoch(-1)
	}
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{src.topic: offsets})
}

func (src *kafkaSource) member() []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(src.group), kgo.ConsumeTopics(src.topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(), kgo.AdjustFetchOffsetsFn(src.take),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) { src.give(ctx, gone, true) }),
		kgo.OnPartitionsLost(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) { src.give(ctx, gone, false) }),
		// No partition may change hands between a poll and the hand-over to its track.
		kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(sessionTimeout / 10),
		kgo.RebalanceTimeout(2*src.s.cfg.DrainTimeout + time.Minute),
	}
}

// take gives newly assigned partitions their places: the committed ones, whose metadata says whose
// records count there, so that a void record is known behind a restart too.
func (src *kafkaSource) take(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	if len(offsets[src.topic]) == 0 {
		return offsets, nil
	}
	select {
	case <-src.s.started:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for n := 1; ; n++ {
		out, err := src.takeOnce(ctx, offsets[src.topic])
		if err == nil {
			return map[string]map[int32]kgo.Offset{src.topic: out}, nil
		}
		if errors.Is(err, errOtherLog) || errors.Is(err, ErrPosition) {
			src.s.fail(err)
		} else {
			src.k.c.cfg.Logger.Warn("the places of new partitions cannot be read, trying again", "subscription", src.s.cfg.Name, "error", err)
		}
		if !src.k.c.sleep(ctx, src.s.cfg.Retry.pause(n)) {
			return nil, context.Cause(ctx)
		}
	}
}

func (src *kafkaSource) takeOnce(ctx context.Context, wanted map[int32]kgo.Offset) (map[int32]kgo.Offset, error) {
	committed, err := src.k.admin.FetchOffsets(ctx, src.group)
	if err == nil {
		err = committed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read the places of group %s: %w", src.group, err)
	}
	var starts map[int32]int64
	places := map[int32]place{}
	for partition := range wanted {
		at, there, err := src.committedPlace(committed, partition)
		if err != nil {
			return nil, err
		}
		if !there && starts == nil {
			if starts, err = src.resolve(ctx, src.s.cfg.From); err != nil {
				return nil, err
			}
		}
		if !there {
			at = place{offset: starts[partition]}
		}
		places[partition] = at
	}
	out := map[int32]kgo.Offset{}
	for partition, at := range places {
		stored := at
		if _, there := committed.Lookup(src.topic, partition); !there {
			stored = place{offset: -1} // so that a place like "end" is stored before anything comes
		}
		src.s.open(partition, at, stored)
		out[partition] = kgo.NoResetOffset().At(at.offset).WithEpoch(-1)
	}
	return out, nil
}

// errOtherLog: the group's places are of a topic that was deleted and made anew.
var errOtherLog = errors.New("the committed places are of another topic of this name: begin again by Replay with MoveCheckpoint")

func (src *kafkaSource) committedPlace(committed kadm.OffsetResponses, partition int32) (at place, there bool, err error) {
	response, there := committed.Lookup(src.topic, partition)
	if !there || response.At < 0 {
		return place{}, false, nil
	}
	at.offset = response.At
	topicID, lineage, ours := parseMetadata(response.Metadata)
	if !ours {
		return at, true, nil // committed by a tool: the first pair that is seen counts
	}
	if topicID != event.FormatTopicID(src.info.ID) {
		return at, true, fmt.Errorf("%w: %s has id %s, the place is of %s", errOtherLog, src.topic, event.FormatTopicID(src.info.ID), topicID)
	}
	at.lineage = lineage
	return at, true, nil
}

// metadata of a commit: "<topic id>/<producer id>/<epoch>", the last two empty where no owner is
// known yet.
func (src *kafkaSource) metadata(at place) string {
	text := event.FormatTopicID(src.info.ID) + "/"
	if !at.lineage.Known {
		return text + "/"
	}
	return text + strconv.FormatInt(at.lineage.Claim.ProducerID, 10) + "/" + strconv.Itoa(int(at.lineage.Claim.Epoch))
}

func parseMetadata(text string) (topicID string, l event.Lineage, ours bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return "", l, false
	}
	if _, err := event.ParseTopicID(parts[0]); err != nil {
		return "", l, false
	}
	if parts[1] == "" && parts[2] == "" {
		return parts[0], l, true
	}
	producer, err1 := strconv.ParseInt(parts[1], 10, 64)
	epoch, err2 := strconv.ParseInt(parts[2], 10, 16)
	if err1 != nil || err2 != nil {
		return "", l, false
	}
	return parts[0], event.Lineage{Claim: event.Claim{ProducerID: producer, Epoch: int16(epoch)}, Known: true}, true
}

// give lets partitions go. Its own context: kgo's ends with the session, the drain is bounded.
func (src *kafkaSource) give(ctx context.Context, gone map[string][]int32, ours bool) {
	var tracks []*track
	for _, partition := range gone[src.topic] {
		if t := src.s.track(partition); t != nil {
			tracks = append(tracks, t)
		}
	}
	src.s.closeTracks(context.WithoutCancel(ctx), tracks, ours)
}

func (src *kafkaSource) fetch(ctx context.Context) error {
	topic := []string{src.topic}
	for {
		free, err := src.s.room(ctx, func() { src.client.PauseFetchTopics(src.topic) }, func() { src.client.ResumeFetchTopics(topic...) })
		if err != nil {
			return err
		}
		fetches := src.client.PollRecords(ctx, min(free, pollMax))
		err = src.takeIn(ctx, fetches)
		src.client.AllowRebalance()
		if err != nil {
			return err
		}
	}
}

func (src *kafkaSource) takeIn(ctx context.Context, fetches kgo.Fetches) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if fetches.IsClientClosed() {
		return ErrClosed
	}
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		if err := src.fatal(ctx, topic, partition, err); err != nil {
			fatal = errors.Join(fatal, err)
			return
		}
		src.k.c.cfg.Logger.Warn("events cannot be read, trying again", "subscription", src.s.cfg.Name, "error", err)
	})
	for rec := range fetches.RecordsAll() {
		if err := src.one(rec); err != nil {
			return errors.Join(fatal, err)
		}
	}
	return fatal
}

// fatal returns what no further try mends.
func (src *kafkaSource) fatal(ctx context.Context, topic string, partition int32, err error) error {
	var answer *kerr.Error
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fmt.Errorf("%s[%d] does not have the place any more: begin again by Replay with MoveCheckpoint: %w", src.topic, partition, err)
	case errors.Is(err, kerr.UnknownTopicID):
		if info, lookErr := src.k.topic(ctx, src.topic); lookErr == nil && info.ID != src.info.ID {
			return fmt.Errorf("%w: %s", errOtherLog, src.topic)
		}
		return nil
	case errors.As(err, &answer) && !answer.Retriable && topic != "",
		errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.TopicAuthorizationFailed):
		return fmt.Errorf("read %s[%d]: %w", src.topic, partition, err)
	}
	return nil
}

func (src *kafkaSource) one(rec *kgo.Record) error {
	t := src.s.track(rec.Partition)
	if t == nil {
		return nil
	}
	verdict := t.read.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers)
	after := place{offset: rec.Offset + 1, lineage: t.read}
	if verdict != event.VerdictEvent {
		src.s.pass(t, after)
		return nil
	}
	recorded, err := event.ParseRecorded(src.s.cfg.Category, rec)
	if err != nil {
		return fmt.Errorf("this log holds what no writer of ours writes: %w", err)
	}
	e := fromRecorded(recorded)
	e.record = rec
	src.s.add(t, e, after)
	return nil
}

func (src *kafkaSource) store(ctx context.Context, t *track) error {
	if src.group == "" {
		return nil
	}
	metadata := src.metadata(t.at)
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = &metadata
			}
		}
		return nil
	})
	var failed error
	src.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{src.topic: {t.number: {Epoch: -1, Offset: t.at.offset}}},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			failed = err
			if response == nil {
				return
			}
			for _, topic := range response.Topics {
				for _, p := range topic.Partitions {
					failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		})
	if failed != nil {
		return fmt.Errorf("commit %s[%d] for group %s: %w", src.topic, t.number, src.group, failed)
	}
	return nil
}

func (src *kafkaSource) letter(ctx context.Context, e *entry, cause error, attempts int, firstAt time.Time) error {
	if src.sink == nil {
		return errNoLetters
	}
	_, err := src.sink.Produce(ctx, deadletter.New(src.consumer, src.info.ID, e.event.record, cause, attempts, firstAt))
	return err
}

func (src *kafkaSource) close() {
	if src.client != nil {
		src.client.CloseAllowingRebalance()
	}
	if src.sink != nil {
		src.sink.Close()
	}
}

// resolve finds the first offset of each partition.
func (src *kafkaSource) resolve(ctx context.Context, from From) (map[int32]int64, error) {
	named := map[int32]int64{}
	var err error
	if from.kind == fromPosition {
		if named, err = src.parsePosition(from.position); err != nil {
			return nil, err
		}
	}
	var listed kadm.ListedOffsets
	switch from.kind {
	case fromEnd:
		listed, err = src.k.admin.ListEndOffsets(ctx, src.topic)
	case fromTime:
		listed, err = src.k.admin.ListOffsetsAfterMilli(ctx, from.time.UnixMilli(), src.topic)
	default:
		listed, err = src.k.admin.ListStartOffsets(ctx, src.topic)
	}
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find the places of %s: %w", src.topic, err)
	}
	starts := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { starts[o.Partition] = o.Offset })
	maps.Copy(starts, named)
	return starts, nil
}

// position is "k1/<topic id>/<next offset of partition 0>,…"; a partition that is somebody else's
// is "-", and begins at its start.
func (src *kafkaSource) position(tracks []*track) string {
	offsets := make([]string, src.info.Partitions)
	for i := range offsets {
		offsets[i] = "-"
	}
	for _, t := range tracks {
		if int(t.number) < len(offsets) {
			offsets[t.number] = strconv.FormatInt(t.at.offset, 10)
		}
	}
	return "k1/" + event.FormatTopicID(src.info.ID) + "/" + strings.Join(offsets, ",")
}

// parsePosition returns the offsets that a position names.
func (src *kafkaSource) parsePosition(text string) (map[int32]int64, error) {
	const prefix = "k1/"
	id, offsets, _ := strings.Cut(strings.TrimPrefix(text, prefix), "/")
	list := strings.Split(offsets, ",")
	if !strings.HasPrefix(text, prefix) || id != event.FormatTopicID(src.info.ID) || len(list) != int(src.info.Partitions) {
		return nil, fmt.Errorf("%w: %s", ErrPosition, src.topic)
	}
	starts := map[int32]int64{}
	for i, offset := range list {
		if offset == "-" {
			continue
		}
		n, err := strconv.ParseInt(offset, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: offset %.20q of partition %d", ErrPosition, offset, i)
		}
		starts[int32(i)] = n
	}
	return starts, nil
}

// moveGroup sets the places of a group without living members.
func (src *kafkaSource) moveGroup(ctx context.Context, group string, starts map[int32]int64) error {
	offsets := kadm.Offsets{}
	for partition, offset := range starts {
		offsets.Add(kadm.Offset{Topic: src.topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: src.metadata(place{})})
	}
	responses, err := src.k.admin.CommitOffsets(ctx, group, offsets)
	if err == nil {
		err = responses.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return fmt.Errorf("move the checkpoint: group %s has living members: stop the other instances of the subscription first: %w", group, err)
	}
	if err != nil {
		return fmt.Errorf("move the checkpoint of group %s: %w", group, err)
	}
	return nil
}
