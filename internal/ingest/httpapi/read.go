package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/event"
)

// Codes of problems of reads. They are part of the API.
const (
	codeNoStream  = "no-stream"  // the stream has no event
	codeNoVersion = "no-version" // the stream does not have that version
	codeNoFold    = "no-fold"    // the category has no decider
	codeNoCommand = "no-command" // no event of that command is in the log
	codeStale     = "stale"      // the index is too far behind, or the version waited for did not come
	codeLog       = "log"        // index and log do not fit together: an operator has to look
	codePosition  = "position"   // the position is of another log
)

// Defaults and bounds of a read's parameters.
const (
	limitDefault = 100
	waitDefault  = 5 * time.Second
	waitMax      = TimeoutMax
	versionMax   = 1_000_000_000_000_000_000 - 1 // 18 digits
)

// RecordedEvent is one event as reads and subscriptions show it.
type RecordedEvent struct {
	Category      string            `json:"category,omitempty" doc:"In subscriptions"`
	Stream        string            `json:"stream,omitempty" doc:"In subscriptions: the aggregate's id"`
	Version       int64             `json:"version" minimum:"1"`
	ID            string            `json:"id"`
	Type          string            `json:"type"`
	Time          time.Time         `json:"time" doc:"Business time, in UTC, to the microsecond"`
	RecordedAt    time.Time         `json:"recordedAt" doc:"The record's stamp, in UTC"`
	CommandID     string            `json:"commandId,omitempty"`
	CorrelationID string            `json:"correlationId,omitempty"`
	CausationID   string            `json:"causationId,omitempty"`
	UserID        string            `json:"userId,omitempty"`
	Partition     int32             `json:"partition" minimum:"0"`
	Offset        int64             `json:"offset" minimum:"0"`
	Metadata      map[string]string `json:"metadata,omitempty" doc:"The headers that are not Foldstream's own"`
	Data          json.RawMessage   `json:"data,omitempty" doc:"The payload as plain JSON, by the schema that it was written with; null where it cannot be read"`
	Value         string            `json:"value,omitempty" doc:"With encoding=avro: the framed Avro in base64"`
	Error         string            `json:"error,omitempty" doc:"Why data is null"`
}

// StreamPage is part of a stream.
type StreamPage struct {
	Category string          `json:"category"`
	ID       string          `json:"id"`
	Version  int64           `json:"version" minimum:"1" doc:"Of the stream's last event, as of this read"`
	Events   []RecordedEvent `json:"events" nullable:"false" doc:"In the order asked for"`
	Next     int64           `json:"next,omitempty" minimum:"1" doc:"The from of the next page; absent at the end"`
}

// StreamState is a stream's state.
type StreamState struct {
	Category string          `json:"category"`
	ID       string          `json:"id"`
	Version  int64           `json:"version" minimum:"1" doc:"Of the last event in it"`
	Time     time.Time       `json:"time" doc:"When that event was recorded"`
	State    json.RawMessage `json:"state" doc:"As the category's decider folds it, as plain JSON"`
}

// CommandOutcome is what became of a command.
type CommandOutcome struct {
	Outcome      string `json:"outcome" enum:"accepted"`
	CommandID    string `json:"commandId"`
	FirstVersion int64  `json:"firstVersion" minimum:"1"`
	LastVersion  int64  `json:"lastVersion" minimum:"1"`
	Partition    int32  `json:"partition" minimum:"0"`
	Offset       int64  `json:"offset" minimum:"0" doc:"Of the last event"`
}

func (a *API) registerReads() {
	const stream = "/v1/streams/{category}/{id}"
	a.register(route{operation: &huma.Operation{
		OperationID: "read-events", Method: http.MethodGet, Path: stream + "/events", Tags: []string{"Read"},
		Summary:     "Read events of a stream",
		Description: "Reads see every event that was acknowledged before they began.",
		Parameters: append(readPathParams(),
			queryParam("from", "The first version wanted; the first event by default, the last one backward", versionSchema()),
			queryParam("limit", "How many events at most", &huma.Schema{Type: huma.TypeInteger, Format: "int32", Minimum: number(1), Maximum: number(streams.LimitMax), Default: limitDefault}),
			queryParam("direction", "backward reads down from from", &huma.Schema{Type: huma.TypeString, Enum: []any{"forward", "backward"}, Default: "forward"}), //nolint:dupword // the second is a parameter
			queryParam("min_version", "What the stream must have; the read waits for it", versionSchema()),
			queryParam("wait", "How long to wait for min_version, such as 500ms; 5s by default, 25s at most", durationSchema()),
			queryParam("encoding", "avro gives value, the framed Avro in base64, instead of data", &huma.Schema{Type: huma.TypeString, Enum: []any{"json", "avro"}, Default: "json"}),
		),
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("Events of the stream", reflect.TypeFor[StreamPage]()),
			"400": a.problemResponse("A parameter is wrong; errors names each"),
			"404": a.problemResponse("Codes unknown-category and no-stream"),
			"503": a.problemResponse("Code stale: the index is too far behind, or min_version did not come; code log: index and log do not fit together; code unavailable"),
		},
	}, serve: a.serveEvents})
	a.register(route{operation: &huma.Operation{
		OperationID: "read-state", Method: http.MethodGet, Path: stream + "/state", Tags: []string{"Read"},
		Summary: "Read a stream's state", Description: "Now, after a version, or after all that was recorded up to a time.",
		Parameters: append(readPathParams(),
			queryParam("version", "The version after which; not together with time", versionSchema()),
			queryParam("time", "The time of recording up to which, as in RFC 3339", &huma.Schema{Type: huma.TypeString, Format: "date-time"}),
		),
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The state", reflect.TypeFor[StreamState]()),
			"400": a.problemResponse("A parameter is wrong; errors names each"),
			"404": a.problemResponse("Codes unknown-category, no-stream, no-version, and no-fold: the category has no decider"),
			"503": a.problemResponse("Codes stale, log and unavailable, as for the events"),
		},
	}, serve: a.serveState})
	a.register(route{operation: &huma.Operation{
		OperationID: "read-command", Method: http.MethodGet, Path: stream + "/commands/{commandId}", Tags: []string{"Read"},
		Summary:     "Look an outcome up",
		Description: "404 with code no-command: it may not have been decided yet, or was decided without an event; send it again under the same id to know.",
		Parameters: append(readPathParams(), &huma.Param{Name: "commandId", In: "path", Required: true, Description: "The idempotency key",
			Schema: &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(event.IDBytesMax)}}),
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The command was accepted", reflect.TypeFor[CommandOutcome]()),
			"400": a.problemResponse("A parameter is wrong; errors names each"),
			"404": a.problemResponse("Codes unknown-category and no-command"),
			"503": a.problemResponse("Codes stale, log and unavailable, as for the events"),
		},
	}, serve: a.serveCommand})
}

// eventsQuery is a read of events as asked for.
type eventsQuery struct {
	streams.Query
	encoding string
}

func (a *API) eventsQuery(r *http.Request) (eventsQuery, error) {
	var q eventsQuery
	id, err := a.streamOf(r)
	if err != nil {
		return q, err
	}
	values, err := query(r, "from", "limit", "direction", "min_version", "wait", "encoding")
	if err != nil {
		return q, err
	}
	p := readParams{values: values}
	q.Stream = id
	q.From = event.Version(p.integer("from", 0, versionMax))
	q.Limit = int(p.integer("limit", limitDefault, streams.LimitMax))
	q.Backward = p.choice("direction", "forward", "backward") == "backward"
	q.MinVersion = event.Version(p.integer("min_version", 0, versionMax))
	q.encoding = p.choice("encoding", encodingJSON, encodingAvro)
	q.Wait, err = durationParam(values, "wait", waitDefault, waitMax)
	p.add(err)
	return q, p.err()
}

func (a *API) serveEvents(w http.ResponseWriter, r *http.Request) error {
	q, err := a.eventsQuery(r)
	if err != nil {
		return err
	}
	store, err := a.reader()
	if err != nil {
		return err
	}
	text := pageText{api: a, ctx: r.Context(), encoding: q.encoding}
	defer text.release()
	page, err := store.LoadInto(r.Context(), q.Query, &text)
	if err != nil {
		return readProblem(err)
	}
	return text.send(w, &page)
}

func (a *API) serveCommand(w http.ResponseWriter, r *http.Request) error {
	id, err := a.streamOf(r)
	if err != nil {
		return err
	}
	if _, err := query(r); err != nil {
		return err
	}
	commandID := r.PathValue("commandId")
	if reason := textFault(commandID, event.IDBytesMax); reason != "" {
		return faulty(codeParameter, Fault{Location: "path.commandId", Message: reason})
	}
	store, err := a.reader()
	if err != nil {
		return err
	}
	c, err := store.Command(r.Context(), id, commandID)
	if err != nil {
		return readProblem(err)
	}
	return answerJSON(w, CommandOutcome{
		Outcome: "accepted", CommandID: commandID, FirstVersion: int64(c.First), LastVersion: int64(c.Last), Partition: c.Partition, Offset: c.Offset,
	})
}

// reader is the store, or a 503 where the service has none.
func (a *API) reader() (*streams.Store, error) {
	if a.cfg.Streams == nil {
		return nil, problem(http.StatusServiceUnavailable, codeUnavailable, "this service reads no streams")
	}
	return a.cfg.Streams, nil
}

// readProblem makes the answer of a read's error.
func readProblem(err error) error {
	var stale *streams.StaleError
	var fault *streams.LogError
	switch {
	case errors.As(err, &stale):
		return problem(http.StatusServiceUnavailable, codeStale, stale.Error()).comeAgain()
	case errors.As(err, &fault):
		return problem(http.StatusServiceUnavailable, codeLog, fault.Error())
	case errors.Is(err, streams.ErrNoCategory):
		return problem(http.StatusNotFound, codeUnknownCategory, err.Error())
	case errors.Is(err, streams.ErrNoStream):
		return problem(http.StatusNotFound, codeNoStream, err.Error())
	case errors.Is(err, streams.ErrNoVersion):
		return problem(http.StatusNotFound, codeNoVersion, err.Error())
	case errors.Is(err, streams.ErrNoFold):
		return problem(http.StatusNotFound, codeNoFold, err.Error())
	case errors.Is(err, streams.ErrNoCommand):
		return problem(http.StatusNotFound, codeNoCommand, err.Error())
	case errors.Is(err, streams.ErrTooManyFeeds):
		return overloaded(err.Error())
	case errors.Is(err, streams.ErrPosition):
		return problem(http.StatusBadRequest, codePosition, err.Error())
	}
	return fmt.Errorf("read: %w", err)
}

// answerJSON answers with a value that has json tags.
func answerJSON(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	writeJSON(w, http.StatusOK, append(text, '\n'))
	return nil
}
