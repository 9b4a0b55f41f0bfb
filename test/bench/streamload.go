package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	loadedEvents  = 10_000
	loadedVersion = 9_950
	loadedBatch   = 50 // events an append: fewer than the versions between two history slots
	indexedMax    = 2 * time.Minute
	loadNamespace = "load"
)

// loadStreams measures reads of one stream of 10,000 events over HTTP, out of the index: all of it,
// and its state at version 9,950 when nobody has asked for the stream before, which is folded from a
// history slot. Beside them the same rows by hand out of the same Postgres.
func (b *bench) loadStreams() error {
	postgres, err := devstack.StartPostgres(b.ctx, devstack.PostgresConfig{DataDir: filepath.Join(b.dir, "postgres-load")})
	if err != nil {
		return err
	}
	defer postgres.Stop()
	pool, err := pgxpool.New(b.ctx, postgres.DSN())
	if err != nil {
		return err
	}
	defer pool.Close()
	i, err := b.startAPI("all", loadNamespace, postgres.DSN())
	if err != nil {
		return err
	}
	// One stream for each run, since its state is cold once, and one to warm the rest up.
	for n := range b.options.runs + 1 {
		if err := b.fillStream(i.address, loadedStream(n)); err != nil {
			return errors.Join(err, i.stop())
		}
	}
	err = b.awaitIndexed(pool)
	for run := 0; run <= b.options.runs && err == nil; run++ {
		err = b.loadOnce(i.address, pool, run)
	}
	return errors.Join(err, i.stop())
}

func loadedStream(n int) string { return "long-" + strconv.Itoa(n) }

// fillStream appends the events, some at once.
func (b *bench) fillStream(address, stream string) error {
	conn, err := dialHTTP(address)
	if err != nil {
		return err
	}
	defer conn.close()
	event := `{"type":"` + benchEvent + `","data":{"by":1,"note":"` + benchNote + `"}}`
	body := []byte(`{"events":[` + strings.Repeat(event+",", loadedBatch-1) + event + `]}`)
	for n := range loadedEvents / loadedBatch {
		header := jsonHeader + "Idempotency-Key: " + stream + "-" + strconv.Itoa(n) + "\r\n"
		status, answer, err := conn.post("/v1/streams/"+benchCategory+"/"+stream+"/events", header, body)
		if err != nil {
			return err
		}
		if status != http.StatusCreated {
			return fmt.Errorf("append: status %d: %s", status, answer)
		}
	}
	return nil
}

// awaitIndexed waits until the projector has written all events and the history slots.
func (b *bench) awaitIndexed(pool *pgxpool.Pool) error {
	want := (b.options.runs + 1) * loadedEvents
	deadline := time.Now().Add(indexedMax)
	for {
		var events, slots int
		err := pool.QueryRow(b.ctx, `SELECT count(*) FROM `+loadNamespace+`.events WHERE category = $1`, benchCategory).Scan(&events)
		if err == nil {
			err = pool.QueryRow(b.ctx, `SELECT count(*) FROM `+loadNamespace+`.snapshots WHERE category = $1 AND version = 9900`, benchCategory).Scan(&slots)
		}
		if err == nil && events == want && slots == b.options.runs+1 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the index has %d of %d events and %d of %d history slots after %s: %w", events, want, slots, b.options.runs+1, indexedMax, err)
		}
		if err := b.pause(100 * time.Millisecond); err != nil {
			return err
		}
	}
}

// loadOnce makes the measurements; those of run 0 warm up and do not count.
func (b *bench) loadOnce(address string, pool *pgxpool.Pool, run int) error {
	base := "http://" + address + "/v1/streams/" + benchCategory + "/" + loadedStream(run)
	for _, m := range []struct {
		what string
		do   func() error
	}{
		{"state at version 9,950, cold", func() error { return readState(base) }},
		{"state at version 9,950, by hand", func() error { return b.stateByHand(pool, loadedStream(run)) }},
		{"10,000 events", func() error { return readEvents(base + "/events?limit=10000") }},
		{"10,000 events as Avro", func() error { return readEvents(base + "/events?limit=10000&encoding=avro") }},
		{"10,000 events, by hand", func() error {
			return b.rowsByHand(pool, `SELECT version, id, type, time, recorded_at, value FROM `+loadNamespace+`.events WHERE category = $1 AND stream = $2 ORDER BY version`, loadedEvents, loadedStream(run))
		}},
	} {
		began := time.Now()
		if err := m.do(); err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		if took := time.Since(began); run > 0 {
			b.measure("load", m.what, "ms", run, took.Seconds()*1000)
		}
	}
	return nil
}

func get(url string) ([]byte, error) {
	resp, err := http.Get(url) //nolint:gosec // of an instance that this program started
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.500s", resp.Status, body)
	}
	return body, err
}

// readBody makes room once for an answer that says its length: growing a buffer step by step would be
// the client's time.
func readBody(resp *http.Response) ([]byte, error) {
	if resp.ContentLength < 0 {
		return io.ReadAll(resp.Body)
	}
	body := make([]byte, resp.ContentLength)
	_, err := io.ReadFull(resp.Body, body)
	return body, err
}

// readEvents reads a whole stream. It looks for its end only: to read the JSON is the client's time.
func readEvents(url string) error {
	body, err := get(url)
	if err != nil {
		return err
	}
	for _, piece := range []string{`"version":1,`, `"version":10000,`} {
		if !strings.Contains(strings.ReplaceAll(string(body[:min(len(body), 2000)])+string(body[max(0, len(body)-2000):]), " ", ""), piece) {
			return fmt.Errorf("the answer of %d bytes has no %s: %.300s", len(body), piece, body)
		}
	}
	return nil
}

func readState(base string) error {
	body, err := get(base + "/state?version=" + strconv.Itoa(loadedVersion))
	if err != nil {
		return err
	}
	var state struct {
		Version int `json:"version"`
		State   struct {
			Total int `json:"total"`
		} `json:"state"`
	}
	if err := json.Unmarshal(body, &state); err != nil {
		return err
	}
	if state.Version != loadedVersion || state.State.Total != loadedVersion {
		return fmt.Errorf("got %s, want version and total %d", body, loadedVersion)
	}
	return nil
}

// stateByHand reads what such a state is made of: a snapshot and the events behind it.
func (b *bench) stateByHand(pool *pgxpool.Pool, stream string) error {
	err := b.rowsByHand(pool, `SELECT value FROM `+loadNamespace+`.snapshots WHERE category = $1 AND stream = $2 AND version <= 9950 ORDER BY version DESC LIMIT 1`, 1, stream)
	if err != nil {
		return err
	}
	return b.rowsByHand(pool, `SELECT version, type, value FROM `+loadNamespace+`.events WHERE category = $1 AND stream = $2 AND version > 9900 AND version <= 9950 ORDER BY version`, 50, stream)
}

func (b *bench) rowsByHand(pool *pgxpool.Pool, query string, want int, stream string) error {
	rows, err := pool.Query(b.ctx, query, benchCategory, stream)
	if err != nil {
		return err
	}
	defer rows.Close()
	got := 0
	for rows.Next() {
		if _, err := rows.Values(); err != nil {
			return err
		}
		got++
	}
	if got != want && rows.Err() == nil {
		return fmt.Errorf("got %d rows, want %d", got, want)
	}
	return rows.Err()
}
