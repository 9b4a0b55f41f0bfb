package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Faults that a writer must not survive in silence: it has to stop, say so, and answer nothing
// that is not true.

// goneOffset is added to the offsets of records that came after a topic was made anew, so that the
// records of both can be told.
const goneOffset = int64(1) << 40

// recreate deletes a topic of the target category and makes it anew. The clients are held back
// meanwhile, so that all of the old topic is known.
func (g *stage) recreate(ctx context.Context, s Step) (bool, string, error) {
	category := categories[s.Target%len(categories)]
	g.pause(true)
	defer g.pause(false)
	settled, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := poll(settled, 20*time.Millisecond, "all requests answered", func() (bool, error) { return g.load.owed() == 0, nil }); err != nil {
		return false, "", err
	}
	topic := topics.Events(g.st.run.Namespace, category)
	if s.Value == "commands" {
		topic = topics.Commands(g.st.run.Namespace, category)
	}
	if err := g.keep(ctx, category, s.Value); err != nil {
		return false, "", err
	}
	if _, err := g.st.admin.DeleteTopic(ctx, topic); err != nil {
		return false, "", fmt.Errorf("delete %s: %w", topic, err)
	}
	err := poll(ctx, 50*time.Millisecond, topic+" to be made anew", func() (bool, error) {
		_, err := g.st.admin.CreateTopic(ctx, g.st.run.Partitions, 1, nil, topic)
		return err == nil, nil
	})
	g.mustStop(category, g.allPartitions()...)
	return err == nil, topic, err
}

// keep reads what is about to be deleted.
func (g *stage) keep(ctx context.Context, category, which string) error {
	r := &Run{Namespace: g.st.run.Namespace}
	if err := g.st.readAll(ctx, r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if which == "commands" {
		for _, c := range r.Commands {
			if c.Category == category {
				g.goneCmds = append(g.goneCmds, c)
			}
		}
		return nil
	}
	for _, e := range r.Events {
		if e.Category == category {
			g.gone = append(g.gone, e)
		}
	}
	return nil
}

// mustStop notes partitions of a category that have to stop.
func (g *stage) mustStop(category string, partitions ...int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.expected == nil {
		g.expected = map[string]bool{}
	}
	for _, p := range partitions {
		g.expected[fmt.Sprintf("%s/%d", category, p)] = true
	}
}

func (g *stage) allPartitions() []int32 {
	all := make([]int32, g.st.run.Partitions)
	for p := range all {
		all[p] = int32(p)
	}
	return all
}

// truncate has commands gather while nobody serves, and deletes some of them that the group has
// not committed. Whoever takes over must find that out.
func (g *stage) truncate(ctx context.Context, s Step) (bool, string, error) {
	category := categories[s.Target%len(categories)]
	topic := topics.Commands(g.st.run.Namespace, category)
	var faults []error
	for _, victim := range g.st.named("ingest") {
		faults = append(faults, victim.kill())
	}
	if err := errors.Join(append(faults, sleep(ctx, s.For))...); err != nil {
		return false, "", err
	}
	g.pause(true)
	defer g.pause(false)
	if err := g.keep(ctx, category, "commands"); err != nil {
		return false, "", err
	}
	ends, err := g.st.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return false, "", err
	}
	deletions := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) { deletions.AddOffset(o.Topic, o.Partition, o.Offset, -1) })
	committed, err := g.st.admin.FetchOffsetsForTopics(ctx, topics.Group(g.st.run.Namespace, topics.ConsumerIngest), topic)
	if err != nil {
		return false, "", err
	}
	var hit []int32 // a partition that no stream has fallen to loses nothing
	unhandled := ""
	ends.Each(func(o kadm.ListedOffset) {
		c, known := committed.Lookup(topic, o.Partition)
		if !known {
			c.At = 0
		}
		if o.Offset > max(c.At, 0) {
			hit = append(hit, o.Partition)
		}
		unhandled += fmt.Sprintf(" [%d] %d of %d", o.Partition, o.Offset-max(c.At, 0), o.Offset)
	})
	if _, err := g.st.admin.DeleteRecords(ctx, deletions); err != nil {
		return false, "", err
	}
	g.mustStop(category, hit...)
	faults = nil
	for _, victim := range g.st.named("ingest") {
		faults = append(faults, victim.start())
	}
	return len(hit) > 0, "not committed:" + unhandled, errors.Join(faults...)
}

// retain deletes all events, as a retention that is too short would, behind the last checkpoints:
// what lies between is in no snapshot. Whoever takes over must find that out.
func (g *stage) retain(ctx context.Context, s Step) (bool, string, error) {
	category := categories[s.Target%len(categories)]
	checkpointed, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := poll(checkpointed, 200*time.Millisecond, "events behind the first checkpoint of each partition", func() (bool, error) {
		behind, busy, _, err := g.behindCheckpoints(ctx, category)
		return busy > 0 && len(behind) == busy, err
	})
	if err != nil {
		return false, "", err
	}
	var faults []error
	for _, victim := range g.st.named("ingest") {
		faults = append(faults, victim.kill())
	}
	if err := errors.Join(faults...); err != nil {
		return false, "", err
	}
	behind, _, note, err := g.behindCheckpoints(ctx, category)
	if err == nil && len(behind) > 0 {
		err = g.deleteEvents(ctx, category, behind)
	}
	if err != nil {
		return false, note, err
	}
	faults = nil
	for _, victim := range g.st.named("ingest") {
		faults = append(faults, victim.start())
	}
	return len(behind) > 0, note, errors.Join(faults...)
}

// behindCheckpoints lists the partitions that have events behind their last checkpoint, by the
// broker's stamps. busy is how many have events at all.
func (g *stage) behindCheckpoints(ctx context.Context, category string) (behind []int32, busy int, note string, err error) {
	last := func(topic string, counts func(*kgo.Record) bool) (map[int32]time.Time, error) {
		stamps := map[int32]time.Time{}
		return stamps, g.st.readTopic(ctx, topic, func(rec *kgo.Record) {
			if counts(rec) {
				stamps[rec.Partition] = rec.Timestamp
			}
		})
	}
	checkpoints, err := last(topics.Snapshots(g.st.run.Namespace, category), func(rec *kgo.Record) bool {
		return bytes.Equal(rec.Key, snapshot.CheckpointKey())
	})
	if err != nil {
		return nil, 0, "", err
	}
	events, err := last(topics.Events(g.st.run.Namespace, category), func(rec *kgo.Record) bool { return rec.Key != nil })
	note = "after the checkpoint:"
	for _, p := range g.allPartitions() {
		at, known := checkpoints[p]
		if known && events[p].After(at) {
			behind = append(behind, p)
		}
		if !events[p].IsZero() {
			busy++
			note += fmt.Sprintf(" [%d] %s", p, events[p].Sub(at).Round(time.Millisecond))
		}
	}
	return behind, busy, note, err
}

func (g *stage) deleteEvents(ctx context.Context, category string, behind []int32) error {
	if err := g.keep(ctx, category, "events"); err != nil {
		return err
	}
	ends, err := g.st.admin.ListEndOffsets(ctx, topics.Events(g.st.run.Namespace, category))
	if err != nil {
		return err
	}
	deletions := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		if slices.Contains(behind, o.Partition) {
			deletions.AddOffset(o.Topic, o.Partition, o.Offset, -1)
		}
	})
	if _, err := g.st.admin.DeleteRecords(ctx, deletions); err != nil {
		return err
	}
	g.mustStop(category, behind...)
	return nil
}

// stopped waits until the partitions that must stop have stopped: each is counted as stopped, no
// more are served than nothing was done to, and the instances that hold them say that they are not
// ready. It returns what is not so.
func (g *stage) stopped(ctx context.Context) []string {
	g.mu.Lock()
	mustStop := map[string]int{} // partitions of a category
	for p := range g.expected {
		category, _, _ := strings.Cut(p, "/")
		mustStop[category]++
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopMax)
	defer cancel()
	var last []string // of the last look that was not cut short
	err := poll(ctx, 100*time.Millisecond, "partitions to stop", func() (bool, error) {
		var looks []look
		for _, s := range g.st.named("ingest") {
			looks = append(looks, s.look(ctx, mustStop))
		}
		faults := notStopped(mustStop, int(g.st.run.Partitions), looks)
		if ctx.Err() == nil {
			last = faults
		}
		return len(faults) == 0, nil
	})
	if err == nil {
		return nil
	}
	return append(last, err.Error())
}

// stopMax is how long a loud stop may take.
const stopMax = 20 * time.Second

// look is what one instance says of itself, partitions by category.
type look struct {
	name            string
	fault           error // it did not answer
	ready           bool
	served, stopped map[string]int
}

func (s *service) look(ctx context.Context, categories map[string]int) look {
	l := look{name: s.name, served: map[string]int{}, stopped: map[string]int{}}
	status, _, err := s.get(ctx, "/readyz")
	if err != nil {
		l.fault = err
		return l
	}
	l.ready = status == http.StatusOK
	_, metrics, err := s.get(ctx, "/metrics")
	if err != nil {
		l.fault = err
		return l
	}
	for c := range categories {
		l.served[c] = int(sumOf(metrics, `foldstream_ingest_partitions_owned{category="`+c+`"}`))
		l.stopped[c] = int(sumOf(metrics, `foldstream_ingest_partitions_stopped{category="`+c+`"}`))
	}
	return l
}

// notStopped says what a loud stop lacks, of a look at all instances. Instances that have only just
// started own nothing and are not ready: that is no stop, so it asks for the partitions that they
// call stopped, too.
func notStopped(mustStop map[string]int, partitions int, looks []look) []string {
	var faults []string
	for _, l := range looks {
		if l.fault != nil {
			faults = append(faults, fmt.Sprintf("%s does not answer: %v", l.name, l.fault))
		}
	}
	for _, category := range slices.Sorted(maps.Keys(mustStop)) {
		served, stopped := 0, 0
		for _, l := range looks {
			served += l.served[category]
			stopped += l.stopped[category]
			if l.stopped[category] > 0 && l.ready {
				faults = append(faults, fmt.Sprintf("%s has stopped partitions of %s and calls itself ready", l.name, category))
			}
		}
		if want := mustStop[category]; stopped < want {
			faults = append(faults, fmt.Sprintf("%d partitions of %s are stopped, want %d", stopped, category, want))
		}
		if most := partitions - mustStop[category]; served > most {
			faults = append(faults, fmt.Sprintf("%d partitions of %s are served, at most %d may be", served, category, most))
		}
	}
	return faults
}

// behindGone puts what was kept of deleted topics before what is in the new ones.
func (g *stage) behindGone(r *Run) {
	if len(g.gone) > 0 {
		for i := range r.Events {
			if r.Events[i].Category == g.gone[0].Category {
				r.Events[i].Offset += goneOffset
			}
		}
		r.Events = append(g.gone, r.Events...)
	}
	if len(g.goneCmds) == 0 {
		return
	}
	known, last := map[string]bool{}, map[int32]int64{}
	for _, c := range g.goneCmds {
		known[place(c.Category, c.Partition, c.Offset)+c.ID] = true
		last[c.Partition] = max(last[c.Partition], c.Offset)
	}
	all := g.goneCmds
	for _, c := range r.Commands {
		if known[place(c.Category, c.Partition, c.Offset)+c.ID] {
			continue // it is there still
		}
		if c.Category == g.goneCmds[0].Category && c.Offset <= last[c.Partition] {
			c.Offset += goneOffset
		}
		all = append(all, c)
	}
	r.Commands = all
}
