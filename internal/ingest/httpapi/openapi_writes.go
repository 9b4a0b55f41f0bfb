package httpapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/pkg/event"
)

// The bodies of writes, for the document. They are read by the scanner (envelope.go).

// AppendBody is the body of an append.
type AppendBody struct {
	ExpectedVersion ExpectedVersion `json:"expectedVersion,omitempty"`
	Events          []EventBody     `json:"events" minItems:"1" maxItems:"1000" nullable:"false" doc:"Appended as one, in order"`
}

// EventBody is one event of an append.
type EventBody struct {
	Type     string            `json:"type" minLength:"1" maxLength:"255" doc:"The registered event type, <category>.<Name>"`
	Data     json.RawMessage   `json:"data" doc:"By the type's latest registered schema"`
	ID       string            `json:"id,omitempty" minLength:"1" maxLength:"255" doc:"The event's id; made of the request's key without it"`
	Time     time.Time         `json:"time,omitempty" doc:"Business time; now without it"`
	Metadata map[string]string `json:"metadata,omitempty" doc:"Becomes headers of the event. No name begins with ce_, fs- or dlq."`
}

// CommandBody is the body of a command.
type CommandBody struct {
	Type            string            `json:"type" minLength:"1" maxLength:"255" doc:"The registered command type, <category>.<Name>"`
	Data            json.RawMessage   `json:"data" doc:"By the type's latest registered schema"`
	ExpectedVersion ExpectedVersion   `json:"expectedVersion,omitempty"`
	Time            time.Time         `json:"time,omitempty" doc:"Business time; now without it"`
	Metadata        map[string]string `json:"metadata,omitempty" doc:"Becomes headers of the events. No name begins with ce_, fs- or dlq."`
}

// BatchBody is the body of an append to many streams.
type BatchBody struct {
	Requests []BatchRequest `json:"requests" minItems:"1" maxItems:"1000" nullable:"false" doc:"At most 10,000 events in all"`
}

// BatchRequest is one append of a batch.
type BatchRequest struct {
	Category        string          `json:"category"`
	ID              string          `json:"id" minLength:"1" maxLength:"255" doc:"The aggregate's id"`
	CommandID       string          `json:"commandId,omitempty" minLength:"1" maxLength:"255" doc:"The idempotency key; made up without it"`
	ExpectedVersion ExpectedVersion `json:"expectedVersion,omitempty"`
	Events          []EventBody     `json:"events" minItems:"1" maxItems:"1000" nullable:"false"`
}

// BatchResults answers a batch.
type BatchResults struct {
	Results []BatchResult `json:"results" nullable:"false" doc:"In the order sent"`
}

// BatchResult is what one request of a batch came to: the members of its answer, or of its problem.
type BatchResult struct {
	Status        int     `json:"status" doc:"As if it had been sent alone"`
	Outcome       string  `json:"outcome,omitempty" enum:"accepted,duplicate,conflict,rejected,invalid,unknown"`
	CommandID     string  `json:"commandId,omitempty"`
	FirstVersion  int64   `json:"firstVersion,omitempty" minimum:"0"`
	LastVersion   int64   `json:"lastVersion,omitempty" minimum:"0"`
	Partition     int32   `json:"partition,omitempty" minimum:"-1"`
	Offset        int64   `json:"offset,omitempty" minimum:"-1"`
	ActualVersion int64   `json:"actualVersion,omitempty" minimum:"0"`
	Code          string  `json:"code,omitempty"`
	Detail        string  `json:"detail,omitempty"`
	Errors        []Fault `json:"errors,omitempty"`
}

// ExpectedVersion is a condition on the stream's version.
type ExpectedVersion string

// Schema implements huma.SchemaProvider.
func (ExpectedVersion) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "any (default), none, exists, or the version that the stream must be at",
		AnyOf: []*huma.Schema{
			{Type: huma.TypeString, Pattern: "^(any|none|exists|[0-9]{1,18})$"},
			{Type: huma.TypeInteger, Format: "int64", Minimum: number(0), Maximum: number(versionMax)},
		},
	}
}

// Texts of responses that the writes share.
const (
	doc400 = "The request is at fault; outcome invalid where it was looked at as a whole, errors with each fault's path"
	doc404 = "Code unknown-category"
	doc409 = "Conflict: the expected version did not hold; actualVersion is the stream's"
	doc413 = "The body is too large; code body-too-large"
	doc415 = "The body is of another type; code media-type"
	doc422 = "Rejected: a business refusal, with the decider's code"
	doc503 = "Code unknown: the outcome is not known. Send the same request again, with the same key. Code unavailable: something that this needs is away"
)

// writeParams are the headers that each write takes, and the wait.
func writeParams(keyed bool) []*huma.Param {
	header := func(name, description string, most int) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: description, Schema: &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(most)}}
	}
	params := []*huma.Param{
		header("ce-correlationid", "Names the conversation; goes to the events", event.HeaderValueBytesMax),
		header("ce-causationid", "What caused this request", event.HeaderValueBytesMax),
		header("ce-userid", "Who; goes to the events", event.HeaderValueBytesMax),
		header("traceparent", "W3C trace context; goes to the events", event.HeaderValueBytesMax),
		queryParam("timeout", "How long to wait for the outcome, such as 500ms; 25s at most", durationSchema()),
	}
	if keyed {
		params = append([]*huma.Param{header("Idempotency-Key", "Makes it safe to send the request again", event.IDBytesMax)}, params...)
	}
	return params
}

func (a *API) jsonBody(t reflect.Type) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{mediaJSON: {Schema: a.schemaOf(t)}}}
}

// writeResponses are those of a write to one stream.
func (a *API) writeResponses() map[string]*huma.Response {
	return map[string]*huma.Response{
		"201": a.jsonResponse("Accepted", reflect.TypeFor[Accepted]()),
		"200": a.jsonResponse("Accepted before, with the original's place; or accepted without an event, versions 0", reflect.TypeFor[Accepted]()),
		"400": a.problemResponse(doc400), "404": a.problemResponse(doc404), "408": a.problemResponse(doc408), "409": a.problemResponse(doc409),
		"413": a.problemResponse(doc413), "415": a.problemResponse(doc415), "422": a.problemResponse(doc422), "503": a.problemResponse(doc503),
	}
}

const doc408 = "The body did not come in time"

func (a *API) appendOperation() *huma.Operation {
	return &huma.Operation{
		OperationID: "append-events", Method: http.MethodPost, Path: "/v1/streams/{category}/{id}/events", Tags: []string{"Write"},
		Summary: "Append events to a stream", Description: "All or none, in order, next to each other in the log.",
		Parameters: append(readPathParams(), writeParams(true)...), RequestBody: a.jsonBody(reflect.TypeFor[AppendBody]()), Responses: a.writeResponses(),
	}
}

func (a *API) commandOperation() *huma.Operation {
	return &huma.Operation{
		OperationID: "send-command", Method: http.MethodPost, Path: "/v1/commands/{category}/{id}", Tags: []string{"Write"},
		Summary: "Send a command", Description: "The category's decider decides it.",
		Parameters: append(readPathParams(), writeParams(true)...), RequestBody: a.jsonBody(reflect.TypeFor[CommandBody]()), Responses: a.writeResponses(),
	}
}

func (a *API) batchOperation() *huma.Operation {
	body := a.jsonBody(reflect.TypeFor[BatchBody]())
	body.Content[mediaAvro] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "A foldstream.AppendBatch in Confluent framing"}}
	return &huma.Operation{
		OperationID: "append-batch", Method: http.MethodPost, Path: "/v1/append", Tags: []string{"Write"},
		Summary: "Append to many streams", Description: "Each request has its own outcome. Those of one stream are decided in the order sent.",
		Parameters: writeParams(false), RequestBody: body,
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The result of each request", reflect.TypeFor[BatchResults]()),
			"400": a.problemResponse("The body as a whole is at fault"), "408": a.problemResponse(doc408),
			"413": a.problemResponse(doc413), "415": a.problemResponse(doc415),
		},
	}
}
