package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

// script is a source that plays events on tracks, takes one track away in the middle, and checks
// that a place is never stored past an event that is not handled.
type script struct {
	transport
	t       *rapid.T
	value   []byte
	tracks  int32
	log     [][]string // stream of each event, by track
	takeOff int        // after how many events track 0 is taken away; -1: never

	s    *subscription
	mu   sync.Mutex
	done map[string]bool // handled or a letter, "track/offset"
	at   map[int32]int64 // stored places

	moved chan struct{}
}

func (f *script) source(_ context.Context, s *subscription) (source, error) {
	f.s = s
	for n := range f.tracks {
		s.open(n, place{}, place{})
	}
	return f, nil
}

func (f *script) fetch(ctx context.Context) error {
	played := 0
	for n := range f.tracks {
		for offset, id := range f.log[n] {
			if played == f.takeOff {
				if t := f.s.track(0); t != nil {
					f.s.closeTracks(ctx, []*track{t}, true)
				}
			}
			played++
			if _, err := f.s.room(ctx, func() {}, func() {}); err != nil {
				return err
			}
			t := f.s.track(n)
			if t == nil {
				continue
			}
			after := place{offset: int64(offset) + 1}
			if id == "" {
				f.s.pass(t, after)
				continue
			}
			f.s.add(t, Event{
				Stream: event.StreamID{Category: "note", ID: fmt.Sprint(n, id)}, Version: event.Version(offset + 1), Type: "note.Noted",
				Value: f.value, Partition: n, Offset: int64(offset),
			}, after)
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (f *script) store(_ context.Context, t *track) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.at.offset < f.at[t.number] {
		f.t.Errorf("the place of track %d goes back from %d to %d", t.number, f.at[t.number], t.at.offset)
	}
	for offset, id := range f.log[t.number][:t.at.offset] {
		if id != "" && !f.done[fmt.Sprint(t.number, "/", offset)] {
			f.t.Errorf("place %d of track %d is past offset %d, which is not handled", t.at.offset, t.number, offset)
		}
	}
	f.at[t.number] = t.at.offset
	select {
	case f.moved <- struct{}{}:
	default:
	}
	return nil
}

func (f *script) finish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[fmt.Sprint(e.Partition, "/", e.Offset)] = true
}

func (f *script) letter(_ context.Context, e *entry, _ error, _ int, _ time.Time) error {
	f.finish(e.event)
	return nil
}

func (f *script) position([]*track) string { return "" }
func (f *script) close()                   {}

func drawScript(t *rapid.T, value []byte) *script {
	f := &script{
		t: t, value: value, tracks: rapid.Int32Range(1, 3).Draw(t, "tracks"), done: map[string]bool{}, at: map[int32]int64{}, moved: make(chan struct{}, 1),
		takeOff: rapid.IntRange(-1, 20).Draw(t, "takeOff"),
	}
	for range f.tracks {
		f.log = append(f.log, rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", ""}), 0, 30).Draw(t, "events"))
	}
	return f
}

func testClient(t testing.TB, via transport) *Client {
	t.Helper()
	c := &Client{cfg: Config{URL: "http://x"}.withDefaults(), metrics: newMetrics(nil), via: via, codec: codec.New(schemas(t), codec.Config{})}
	c.life, c.end = context.WithCancelCause(context.Background())
	return c
}

func notedValue(t testing.TB) []byte {
	t.Helper()
	return append(codec.AppendConfluent(nil, idNoted), 2, 'x')
}

func TestPlacesNeverPassWhatIsNotHandled(t *testing.T) {
	t.Parallel()
	value := notedValue(t)
	rapid.Check(t, func(r *rapid.T) {
		f := drawScript(r, value)
		c := testClient(t, f)
		fails := rapid.SliceOfN(rapid.IntRange(0, 3), 90, 90).Draw(r, "fails")
		sub := Subscription{
			Name: "s", Category: "note", Mode: rapid.SampledFrom([]Mode{Sequential, Parallel}).Draw(r, "mode"),
			Workers: rapid.IntRange(1, 5).Draw(r, "workers"), QueueMax: rapid.IntRange(1, 12).Draw(r, "queue"),
			Retry: Retry{Attempts: 2, Wait: time.Nanosecond, WaitMax: time.Nanosecond}, CommitInterval: 200 * time.Microsecond,
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		last, tries, inHand := map[event.StreamID]event.Version{}, map[string]int{}, map[event.StreamID]int{}
		sub.Handler = func(_ context.Context, e Event) error {
			mu.Lock()
			defer mu.Unlock()
			key := fmt.Sprint(e.Partition, "/", e.Offset)
			if sub.Mode == Sequential && (e.Version < last[e.Stream] || inHand[e.Stream] != 0) {
				r.Errorf("stream %s: version %d behind %d, %d in hand", e.Stream, e.Version, last[e.Stream], inHand[e.Stream])
			}
			last[e.Stream] = e.Version
			if tries[key]++; tries[key] <= fails[(int(e.Partition)*30+int(e.Offset))%90] {
				return errors.New("not yet")
			}
			f.finish(e)
			return nil
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Subscribe(ctx, sub) }()
		f.await(r)
		cancel()
		if err := <-ended; err != nil {
			r.Errorf("Subscribe: %v", err)
		}
		f.checkEnd(r)
	})
}

// await waits until all tracks that were not taken away are handled to their ends.
func (f *script) await(r *rapid.T) {
	timeout := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		ready := true
		for n := range f.tracks {
			taken := n == 0 && f.takeOff >= 0
			ready = ready && (taken || f.at[n] == int64(len(f.log[n])))
		}
		f.mu.Unlock()
		if ready {
			return
		}
		select {
		case <-f.moved:
		case <-timeout:
			f.mu.Lock()
			defer f.mu.Unlock()
			r.Fatalf("the places stay at %v of %v", f.at, f.log)
		}
	}
}

func (f *script) checkEnd(r *rapid.T) {
	for n := range f.tracks {
		if n == 0 && f.takeOff >= 0 {
			continue
		}
		if f.at[n] != int64(len(f.log[n])) {
			r.Errorf("track %d: stored %d, want %d", n, f.at[n], len(f.log[n]))
		}
	}
}

func TestTheFateOfAnError(t *testing.T) {
	t.Parallel()
	plain := errors.New("x")
	for name, c := range map[string]struct {
		err     error
		verdict deadletter.Verdict
		forGood bool
	}{
		"an ordinary one":  {plain, deadletter.Retry, false},
		"one to be tried":  {deadletter.Retried("c", plain), deadletter.Retry, true},
		"one to be parked": {deadletter.Parked(deadletter.StageSink, "c", plain), deadletter.Park, true},
		"one to stop at":   {fmt.Errorf("w: %w", deadletter.Stopped("c", plain)), deadletter.Stop, true},
		"bad data":         {fmt.Errorf("w: %w", codec.ErrHostile), deadletter.Park, true},
	} {
		if verdict, forGood := fate(c.err); verdict != c.verdict || forGood != c.forGood {
			t.Errorf("%s: got %v, %v, want %v, %v", name, verdict, forGood, c.verdict, c.forGood)
		}
	}
	if f := deadletter.FateOf(asLetter(plain)); f.Stage != deadletter.StageHandle || f.Class != "handler" {
		t.Errorf("a letter of an ordinary error: got %+v", f)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	e := Event{Type: "note.Noted", UserID: "ann", CorrelationID: "c"}
	for name, c := range map[string]struct {
		sub  Subscription
		want bool
	}{
		"everything":           {Subscription{}, true},
		"the type":             {Subscription{Types: []string{"note.Noted"}}, true},
		"a prefix is no match": {Subscription{Types: []string{"note.Note"}}, false},
		"a wildcard":           {Subscription{Types: []string{"*.N*d"}}, true},
		"all":                  {Subscription{Types: []string{"*"}}, true},
		"a dot is a dot":       {Subscription{Types: []string{"noteXNoted"}}, false},
		"one of several":       {Subscription{Types: []string{"x", "note.*"}}, true},
		"another user":         {Subscription{Users: []string{"bob"}}, false},
		"user and correlation": {Subscription{Users: []string{"bob", "ann"}, Correlations: []string{"c"}}, true},
		"another correlation":  {Subscription{Users: []string{"ann"}, Correlations: []string{"d"}}, false},
	} {
		if got := newFilter(c.sub).passes(&e); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestHandlersThatOutlastTheDrainAreCancelled(t *testing.T) {
	t.Parallel()
	rapidless := &script{value: notedValue(t), tracks: 1, log: [][]string{{"a"}}, takeOff: -1, done: map[string]bool{}, at: map[int32]int64{}, moved: make(chan struct{}, 1)}
	c := testClient(t, rapidless)
	ctx, cancel := context.WithCancel(t.Context())
	handed := make(chan struct{})
	go func() { <-handed; cancel() }()
	err := c.Subscribe(ctx, Subscription{Name: "s", Category: "note", DrainTimeout: time.Millisecond, Handler: func(ctx context.Context, _ Event) error {
		close(handed)
		<-ctx.Done()
		return ctx.Err()
	}})
	if err != nil || rapidless.at[0] != 0 {
		t.Errorf("got %v, place %d, want nil and no place past the event", err, rapidless.at[0])
	}
}
