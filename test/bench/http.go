package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	httpInFlight = 128
	jsonHeader   = "Content-Type: application/json\r\n"
)

// http measures appends of one event over HTTP at the instance that owns all partitions: the time of
// one client beside that of a synchronous idempotent produce, and the rate of 128 clients beside the
// bare loop of the commands bench.
func (b *bench) http() error {
	schemas, err := benchRegistry()
	if err != nil {
		return err
	}
	value, err := b.commandValue(schemas)
	if err != nil {
		return err
	}
	i, err := b.startAPI("ingest", "http", "")
	if err != nil {
		return err
	}
	stopBare, bare, err := b.startBare("httpbare", value)
	if err != nil {
		return err
	}
	defer stopBare()
	defer bare.close()
	produce, stopProduce, err := b.syncProduce("httpsync", value)
	if err != nil {
		return err
	}
	defer stopProduce()
	if err := b.httpRuns(i.address, bare, produce); err != nil {
		return err
	}
	return i.stop()
}

func (b *bench) httpRuns(address string, bare *load, produce func() error) error {
	var requests atomic.Int64
	appends := func(clients int, duration time.Duration) (latencies, error) {
		return b.clients(clients, duration, func() (func() error, func(), error) { return appendOverHTTP(address, &requests) })
	}
	produces := func(duration time.Duration) (latencies, error) {
		return b.clients(1, duration, func() (func() error, func(), error) { return produce, func() {}, nil })
	}
	if _, err := appends(httpInFlight, time.Second); err != nil { // warm-up
		return err
	}
	if _, _, _, _, err := bare.run(b.ctx, httpInFlight, time.Second); err != nil {
		return err
	}
	for run := 1; run <= b.options.runs; run++ {
		one, err := appends(1, b.options.duration)
		if err != nil {
			return err
		}
		produced, err := produces(b.options.duration)
		if err != nil {
			return err
		}
		b.record(one.result("http", "http", 1, run))
		b.record(produced.result("http", "bare", 1, run))
		b.measure("http", "p50 of one client over that of a bare produce", "times", run, one.at(0.5)/produced.at(0.5))
		many, err := appends(httpInFlight, b.options.duration)
		if err != nil {
			return err
		}
		b.record(many.result("http", "http", httpInFlight, run))
		n, perS, p50, p99, err := bare.run(b.ctx, httpInFlight, b.options.duration)
		if err != nil {
			return err
		}
		b.record(result{Bench: "http", System: "bare", InFlight: httpInFlight, Run: run, PerS: perS, P50Ms: p50, P99Ms: p99, Count: n})
		if err := b.wrk(address, run); err != nil {
			return err
		}
	}
	return nil
}

// startBare is the bare loop of the commands bench with a load of its own.
func (b *bench) startBare(ns string, value []byte) (stop func(), l *load, err error) {
	if err := b.createTopics(benchLayout(ns)); err != nil {
		return nil, nil, err
	}
	if stop, err = b.startBareLoop(ns); err != nil {
		return nil, nil, err
	}
	l, err = newLoad(b, ns, value)
	return stop, l, err
}

// syncProduce is one idempotent produce after the other, of an event as the engine writes it.
func (b *bench) syncProduce(ns string, value []byte) (produce func() error, stop func(), err error) {
	if err := b.createTopics(benchLayout(ns)); err != nil {
		return nil, nil, err
	}
	producer, err := kgo.NewClient(b.opts(kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return nil, nil, err
	}
	loop := &bareLoop{ns: ns}
	loop.prepare()
	n := 0
	return func() error {
		n++
		rec := &kgo.Record{Topic: topics.Events(ns, benchCategory), Key: []byte(streamOf(int64(n))), Value: value, Headers: loop.eventHeaders}
		return producer.ProduceSync(b.ctx, rec).FirstErr()
	}, producer.Close, nil
}

// appendOverHTTP is one append after the other on one connection.
func appendOverHTTP(address string, requests *atomic.Int64) (call func() error, closes func(), err error) {
	conn, err := dialHTTP(address)
	if err != nil {
		return nil, nil, err
	}
	body := []byte(`{"expectedVersion":"any","events":[{"type":"` + entryType + `","data":{"by":1,"note":"` + benchNote + `"}}]}`)
	return func() error {
		n := requests.Add(1)
		header := jsonHeader + "Idempotency-Key: request-" + strconv.FormatInt(n, 10) + "\r\n"
		status, answer, err := conn.post("/v1/streams/"+entryCategory+"/"+streamOf(n)+"/events", header, body)
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("append: status %d: %s", status, answer)
		}
		return err
	}, conn.close, nil
}

// latencies are those of one measurement, sorted.
type latencies struct {
	took   time.Duration
	nanos  []int64
	events int // of each call, where that is not one
}

func (l latencies) at(q float64) float64 {
	if len(l.nanos) == 0 {
		return 0
	}
	return float64(l.nanos[int(q*float64(len(l.nanos)-1))]) / 1e6
}

func (l latencies) result(bench, system string, inFlight, run int) result {
	return result{
		Bench: bench, System: system, InFlight: inFlight, Run: run, PerS: float64(len(l.nanos)*max(l.events, 1)) / l.took.Seconds(),
		P50Ms: l.at(0.5), P99Ms: l.at(0.99), Count: len(l.nanos) * max(l.events, 1),
	}
}

// clients lets each of n clients make one call after the other.
func (b *bench) clients(n int, duration time.Duration, open func() (call func() error, closes func(), err error)) (latencies, error) {
	all := make([][]int64, n)
	failed := make([]error, n)
	calls := make([]func() error, n)
	for i := range n {
		call, closes, err := open()
		if err != nil {
			return latencies{}, err
		}
		defer closes()
		calls[i] = call
	}
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			for at := time.Now(); at.Sub(began) < duration && b.ctx.Err() == nil; {
				if failed[i] = calls[i](); failed[i] != nil {
					return
				}
				now := time.Now()
				all[i] = append(all[i], now.Sub(at).Nanoseconds())
				at = now
			}
		})
	}
	wg.Wait()
	l := latencies{took: time.Since(began), nanos: slices.Concat(all...)}
	for _, err := range failed {
		if err != nil {
			return l, err
		}
	}
	slices.Sort(l.nanos)
	return l, b.ctx.Err()
}

// wrkScript appends to many streams; the server makes the ids up.
const wrkScript = `
local n = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"events":[{"type":"` + entryType + `","data":{"by":1,"note":"` + benchNote + `"}}]}'
request = function()
  n = n + 1
  return wrk.format(nil, "/v1/streams/` + entryCategory + `/stream-" .. (n * 7919 % 10000) .. "/events")
end
`

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkMedian = regexp.MustCompile(`50%\s+([0-9.]+)(us|ms|s)`)
	wrkFailed = regexp.MustCompile(`Non-2xx or 3xx responses: ([0-9]+)|Socket errors: .*`)
)

// wrk repeats the load of the clients with wrk, where that is installed.
func (b *bench) wrk(address string, run int) error {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return nil // it is a second opinion
	}
	script := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(script, []byte(wrkScript), 0o644); err != nil {
		return err
	}
	seconds := max(1, int(b.options.duration.Seconds()))
	ctx, cancel := context.WithTimeout(b.ctx, time.Duration(seconds+30)*time.Second)
	defer cancel()
	said, err := exec.CommandContext(ctx, path, "-t2", "-c"+strconv.Itoa(httpInFlight), "-d"+strconv.Itoa(seconds)+"s", "--latency", "-s", script, "http://"+address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("wrk: %w: %s", err, said)
	}
	if fault := wrkFailed.Find(said); fault != nil {
		return fmt.Errorf("wrk: %s", fault)
	}
	rate, median := wrkRate.FindSubmatch(said), wrkMedian.FindSubmatch(said)
	if rate == nil || median == nil {
		return fmt.Errorf("wrk says nothing of rate and latency: %s", said)
	}
	perS, err := strconv.ParseFloat(string(rate[1]), 64)
	if err != nil {
		return err
	}
	p50, err := time.ParseDuration(string(median[1]) + string(median[2]))
	if err != nil {
		return err
	}
	b.record(result{Bench: "http", System: "wrk", InFlight: httpInFlight, Run: run, PerS: perS, P50Ms: p50.Seconds() * 1000, Count: int(perS * float64(seconds))})
	b.measure("http", "appends/s by wrk", "1/s", run, perS)
	return nil
}

const (
	batchEvents      = 100
	batchConnections = 16
)

// httpBatch measures batches of events over HTTP: of as many streams as events in one request, and
// of one stream, as JSON and, of many streams, as Avro.
func (b *bench) httpBatch() error {
	i, err := b.startAPI("ingest", "batch", "")
	if err != nil {
		return err
	}
	avroBatch, err := b.avroBatches("batch")
	if err != nil {
		return err
	}
	var requests atomic.Int64
	kinds := []struct {
		what string
		open func() (func() error, func(), error)
	}{
		{"events/s as JSON, 100 streams a request", func() (func() error, func(), error) {
			return batchesOverHTTP(i.address, &requests, jsonHeader, jsonBatch)
		}},
		{"events/s as JSON, one stream a request", func() (func() error, func(), error) { return streamBatchesOverHTTP(i.address, &requests) }},
		{"events/s as Avro, 100 streams a request", func() (func() error, func(), error) {
			return batchesOverHTTP(i.address, &requests, "Content-Type: application/avro\r\n", avroBatch)
		}},
	}
	for run := 0; run <= b.options.runs; run++ { // the first is the warm-up
		for _, kind := range kinds {
			l, err := b.clients(batchConnections, b.options.duration, kind.open)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.what, err)
			}
			if run > 0 {
				b.measure("http-batch", kind.what, "1/s", run, float64(len(l.nanos)*batchEvents)/l.took.Seconds())
			}
		}
	}
	return i.stop()
}

// batchesOverHTTP is one batch of appends to many streams after the other.
func batchesOverHTTP(address string, requests *atomic.Int64, header string, body func(dst []byte, first int64) ([]byte, error)) (call func() error, closes func(), err error) {
	conn, err := dialHTTP(address)
	if err != nil {
		return nil, nil, err
	}
	var text []byte
	return func() error {
		var err error
		if text, err = body(text[:0], requests.Add(batchEvents)-batchEvents+1); err != nil {
			return err
		}
		status, answer, err := conn.post("/v1/append", header, text)
		if err != nil {
			return err
		}
		if accepted := acceptedIn(answer); status != http.StatusOK || accepted != batchEvents {
			return fmt.Errorf("batch: status %d, %d of %d accepted: %.500s", status, accepted, batchEvents, answer)
		}
		return nil
	}, conn.close, nil
}

var acceptedText = []byte(`"accepted"`)

func acceptedIn(answer []byte) int { return bytes.Count(answer, acceptedText) }

func jsonBatch(dst []byte, first int64) ([]byte, error) {
	dst = append(dst, `{"requests":[`...)
	for n := first; n < first+batchEvents; n++ {
		if n > first {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"category":"`+entryCategory+`","id":"`...)
		dst = append(dst, streamOf(n)...)
		dst = append(dst, `","commandId":"request-`...)
		dst = strconv.AppendInt(dst, n, 10)
		dst = append(dst, `","events":[{"type":"`+entryType+`","data":{"by":1,"note":"`+benchNote+`"}}]}`...)
	}
	return append(dst, `]}`...), nil
}

// streamBatchesOverHTTP is one append of many events to one stream after the other.
func streamBatchesOverHTTP(address string, requests *atomic.Int64) (call func() error, closes func(), err error) {
	conn, err := dialHTTP(address)
	if err != nil {
		return nil, nil, err
	}
	body := []byte(`{"events":[`)
	for i := range batchEvents {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"type":"`+entryType+`","data":{"by":1,"note":"`+benchNote+`"}}`...)
	}
	body = append(body, `]}`...)
	return func() error {
		n := requests.Add(1)
		header := jsonHeader + "Idempotency-Key: several-" + strconv.FormatInt(n, 10) + "\r\n"
		status, answer, err := conn.post("/v1/streams/"+entryCategory+"/several-"+streamOf(n)+"/events", header, body)
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("append: status %d: %s", status, answer)
		}
		return err
	}, conn.close, nil
}

// avroBatches makes foldstream.AppendBatch bodies with the ids of a namespace's registry, by hand:
// an encoder would cost the client more than JSON does.
func (b *bench) avroBatches(ns string) (func(dst []byte, first int64) ([]byte, error), error) {
	reader, err := registry.NewTopic(registry.TopicConfig{Opts: b.opts(), Namespace: ns, Logger: b.log})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	cdc := codec.New(reader, codec.Config{})
	batch, err := cdc.Bind(b.ctx, codec.AppendBatchDef())
	if err != nil {
		return nil, err
	}
	recorded, err := cdc.Bind(b.ctx, codec.TypeDef{Name: entryType, Version: 1, Kind: event.KindEvent})
	if err != nil {
		return nil, err
	}
	framed, err := recorded.Append(nil, map[string]any{"by": int64(1), "note": benchNote})
	if err != nil {
		return nil, err
	}
	id, data := recorded.Registered().ID, framed[codec.ConfluentHeaderBytes:]
	return func(dst []byte, first int64) ([]byte, error) {
		text := func(s string) { dst = append(binary.AppendVarint(dst, int64(len(s))), s...) }
		dst = binary.AppendVarint(codec.AppendConfluent(dst, batch.Registered().ID), batchEvents)
		for n := first; n < first+batchEvents; n++ {
			text(entryCategory)
			text(streamOf(n))
			text("request-" + strconv.FormatInt(n, 10))
			text("")             // any version
			dst = append(dst, 2) // one event
			text(entryType)
			text("")             // a derived id
			dst = append(dst, 0) // the time of the request
			dst = binary.AppendVarint(dst, int64(id))
			text(string(data))
			dst = append(dst, 0, 0) // no metadata, no further event
		}
		return append(dst, 0), nil
	}, nil
}
