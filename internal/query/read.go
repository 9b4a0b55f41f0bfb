package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Classes of Postgres errors that mean something here.
const (
	stateUndefinedTable  = "42P01"
	stateUndefinedColumn = "42703"
	stateUndefinedSchema = "3F000"
	stateNoPrivilege     = "42501"
	stateCachedPlan      = "0A000" // cached plan must not change result type
	stateTypeMismatch    = "42883" // the column is of another type than the catalogue says
	stateCancelled       = "57014" // the statement timeout
	stateOutOfRange      = "22003"
)

// isMoved says whether tables are not, or no more, what the catalogue says.
func isMoved(err error) bool {
	switch stateOf(err) {
	case stateUndefinedTable, stateUndefinedColumn, stateUndefinedSchema, stateCachedPlan, stateTypeMismatch, stateNoPrivilege:
		return true
	}
	return false
}

// stateOf is the SQLSTATE of an error, or "".
func stateOf(err error) string {
	var fault *pgconn.PgError
	if errors.As(err, &fault) {
		return fault.Code
	}
	return ""
}

// binaryFormat asks for all values in the form that encode.go reads.
var binaryFormat = pgx.QueryResultFormats{pgx.BinaryFormatCode}

// query runs one statement and hands its rows to read. planned statements are prepared once for
// each connection, with one plan for all values; others are planned with their values.
func (a *API) query(ctx context.Context, rt *route, planned bool, sql string, args []any, read func(pgx.Rows) error) error {
	began := a.cfg.Clock()
	conn, release, err := a.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	options := make([]any, 0, len(args)+2)
	if !planned {
		options = append(options, pgx.QueryExecModeCacheDescribe)
	}
	options = append(append(options, binaryFormat), args...)
	rows, err := conn.Query(reading, sql, options...)
	if err == nil {
		err = read(rows)
		if err != nil {
			cancel() // what Postgres still sends may be gigabytes
		}
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
	}
	took := a.cfg.Clock().Sub(began)
	rt.metrics.statements.Observe(took.Seconds())
	if took >= a.cfg.Limits.SlowQuery {
		a.metrics.slow.WithLabelValues(rt.metrics.Route).Inc()
		a.log.Warn("a statement was slow", "route", rt.metrics.Route, "sql", sql, "took", took.Round(time.Millisecond), "failed", err != nil)
	}
	return a.readProblem(ctx, err)
}

// errPageFull ends the reading of rows: the answer has as many bytes as may be.
var errPageFull = errors.New("page is full")

func (a *API) readProblem(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, errPageFull):
		return nil
	case stateOf(err) == stateCancelled && ctx.Err() == nil:
		p := problem(http.StatusServiceUnavailable, codeSlow, fmt.Sprintf("the statement took longer than %s: ask for less, or give the view an index for this filter and sort", a.cfg.Limits.StatementTimeout))
		return p.retry()
	}
	return err
}

// acquire takes a connection, or a place in the queue for one.
func (a *API) acquire(ctx context.Context) (*pgxpool.Conn, func(), error) {
	full := func() error {
		a.metrics.Refused.WithLabelValues(codeOverloaded).Inc()
		return overloaded("as many statements wait for the database as may: come again")
	}
	if a.queued.Add(1) > int64(a.cfg.Limits.PoolMax+a.cfg.Limits.QueueMax) {
		a.queued.Add(-1)
		return nil, nil, full()
	}
	bounded, cancel := context.WithTimeout(ctx, a.cfg.Limits.QueueTimeout)
	defer cancel()
	conn, err := a.pool.Acquire(bounded)
	if err == nil {
		return conn, func() { conn.Release(); a.queued.Add(-1) }, nil
	}
	a.queued.Add(-1)
	if bounded.Err() != nil && ctx.Err() == nil && a.pool.Stat().AcquiredConns() >= a.pool.Stat().MaxConns() {
		return nil, nil, full()
	}
	return nil, nil, fmt.Errorf("connect to Postgres: %w", err)
}

// buffers hold answers while they are made.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// keptBytesMax is how large a buffer may be and still be kept for the next answer.
const keptBytesMax = 256 << 10

// respond makes an answer in a buffer and writes it.
func respond(c *call, fill func(dst []byte) ([]byte, error)) error {
	buffer := buffers.Get().(*[]byte)
	text, err := fill((*buffer)[:0])
	defer func() {
		if cap(text) <= keptBytesMax {
			*buffer = text[:0]
		}
		buffers.Put(buffer)
	}()
	if err != nil {
		return err
	}
	text = append(text, '\n')
	h := c.w.Header()
	h["Content-Type"], h["Cache-Control"] = jsonHeader, noStoreHeader
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(text)
	return nil
}

// Shared between answers; nobody changes them.
var (
	jsonHeader    = []string{contentTypeJSON}
	noStoreHeader = []string{"no-store"}
)

// rowWriter appends rows of a view as JSON objects.
type rowWriter struct {
	members   []string // `"name":` of each column
	appenders []appender
}

// begin looks at the result's types; rows are of one type each.
func (w *rowWriter) begin(fields []pgconn.FieldDescription) error {
	w.appenders = make([]appender, len(w.members))
	for i := range w.members {
		if w.appenders[i] = appenderOf(fields[i].DataTypeOID); w.appenders[i] == nil {
			return fmt.Errorf("column %s is of a type that is not known here (oid %d)", w.members[i], fields[i].DataTypeOID)
		}
	}
	return nil
}

// row appends one.
func (w *rowWriter) row(dst []byte, raw [][]byte) ([]byte, error) {
	dst = append(dst, '{')
	for i, member := range w.members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, member...)
		if raw[i] == nil {
			dst = append(dst, "null"...)
			continue
		}
		var err error
		if dst, err = w.appenders[i](dst, raw[i]); err != nil {
			return dst, fmt.Errorf("column %s %w", member, err)
		}
	}
	return append(dst, '}'), nil
}

func (v *view) writer(indexes []int) *rowWriter {
	w := &rowWriter{members: make([]string, len(indexes))}
	for n, i := range indexes {
		w.members[n] = v.columns[i].member
	}
	return w
}

// rowTooLarge is when not even one row fits into an answer.
func (a *API) rowTooLarge() error {
	return problem(http.StatusUnprocessableEntity, codeRowTooLarge,
		fmt.Sprintf("a row has more than %d bytes: ask for less of it by fields=", a.cfg.Limits.ResponseBytesMax))
}
