package query_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/jackc/pgx/v5/pgxpool"
)

// benchRows is enough for an index of some levels; BenchmarkList makes the million.
const (
	benchRows = 100_000
	listRows  = 1_000_000
	workers   = 16
	poolSize  = 8
)

func benchWorld(b *testing.B, rows int) *world {
	b.Helper()
	w := newWorld(b, func(c *query.Config) {
		c.Definitions, c.Limits = reference.Answers(), query.Limits{PoolMax: poolSize}
	})
	w.exec(`insert into fs_execution_history_v1.rows (execution_id, workflow_id, status, started_at, ended_at, duration_ms, nodes_executed, nodes_failed, version, fs_present)
		select 'execution-' || i, 'workflow-' || i % 1000, (array['running', 'completed', 'completed', 'failed'])[1 + i % 4], $2::timestamptz + i * interval '1 second',
			$2::timestamptz + i * interval '1 second' + interval '2 seconds', 2000, 5, i % 2, 7, true from generate_series(0, $1 - 1) i`, rows, t0)
	w.exec("vacuum analyze fs_execution_history_v1.rows")
	return w
}

// run calls f from some goroutines and reports operations a second and the 50th and 99th percentile.
func run(b *testing.B, at int, f func(n int) error) {
	b.Helper()
	var next atomic.Int64
	for n := range 100 { // caches and prepared statements
		if err := f(n); err != nil {
			b.Fatal(err)
		}
	}
	took := make([][]time.Duration, at)
	b.ResetTimer()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range at {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for next.Add(1) <= int64(b.N) {
				at := time.Now()
				if err := f(rand.IntN(benchRows)); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "ops/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

const byKey = `select execution_id, workflow_id, status, started_at, ended_at, duration_ms, nodes_executed, nodes_failed, version
	from fs_execution_history_v1.rows where execution_id = $1 and fs_present`

// BenchmarkByKey compares a row by its key over HTTP with the same prepared statement without.
func BenchmarkByKey(b *testing.B) {
	w := benchWorld(b, benchRows)
	cfg := w.config()
	cfg.MaxConns = poolSize
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	b.Run("pgx", func(b *testing.B) {
		run(b, workers, func(n int) error {
			var id, workflow, status string
			var started, ended time.Time
			var ms, nodes, failed, version int64
			return pool.QueryRow(context.Background(), byKey, fmt.Sprint("execution-", n)).Scan(&id, &workflow, &status, &started, &ended, &ms, &nodes, &failed, &version)
		})
	})
	lines := newLines(b, w)
	b.Run("http", func(b *testing.B) {
		run(b, workers, func(n int) error { return lines.fetch(fmt.Sprint("/v1/executions/execution-", n)) })
	})
	b.Run("handler", func(b *testing.B) { // without the network and the client
		run(b, workers, func(n int) error {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprint("/v1/executions/execution-", n), nil)
			if err != nil {
				return err
			}
			w.api.ServeHTTP(&recorded{header: http.Header{}}, req)
			return nil
		})
	})
}

// lines are connections of a client that does no more than it must: net/http's costs about what
// the whole service does, on the same two cores.
type lines struct {
	idle chan *bufio.ReadWriter
	host string
}

func newLines(b *testing.B, w *world) *lines {
	b.Helper()
	host := strings.TrimPrefix(w.http.URL, "http://")
	l := &lines{idle: make(chan *bufio.ReadWriter, workers), host: host}
	for range workers {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		l.idle <- bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	return l
}

// fetch wants 200 and a body of a known length.
func (l *lines) fetch(path string) error {
	c := <-l.idle
	defer func() { l.idle <- c }()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, l.host)
	if err := c.Flush(); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200")):
			return fmt.Errorf("%s: got %q", path, line)
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len("Content-Length: "):]))); err != nil {
				return err
			}
		case len(line) == 2:
			_, err := c.Discard(length)
			return err
		}
	}
}

func fetch(client *http.Client, url string) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: got %d", url, res.StatusCode)
	}
	return nil
}

// BenchmarkList reads 50 rows of a million, by a filter that an index serves.
func BenchmarkList(b *testing.B) {
	w := benchWorld(b, listRows)
	w.exec("create index on fs_execution_history_v1.rows (workflow_id, started_at)")
	w.exec("create index on fs_execution_history_v1.rows (status, started_at)")
	w.exec("analyze fs_execution_history_v1.rows")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers, DisableCompression: true}}
	defer client.CloseIdleConnections()
	for name, path := range map[string]func(n int) string{
		"by-workflow": func(n int) string { return fmt.Sprint("/v1/executions?sort=-started_at&workflow_id=workflow-", n%1000) },
		"by-status-and-time": func(n int) string {
			return "/v1/executions?sort=started_at&status=completed&started_at.gte=" + t0.Add(time.Duration(n)*time.Second).Format(time.RFC3339)
		},
	} {
		for _, at := range []int{1, workers} {
			b.Run(fmt.Sprintf("%s/%d", name, at), func(b *testing.B) {
				run(b, at, func(n int) error { return fetch(client, w.http.URL+path(n)) })
			})
		}
	}
}
