package query

import (
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/jackc/pgx/v5"
)

// CorrelatedEvent is one event of a correlation.
type CorrelatedEvent struct {
	Category    string    `json:"category"`
	Stream      string    `json:"stream" doc:"The aggregate's id"`
	Version     int64     `json:"version" minimum:"1"`
	ID          string    `json:"id"`
	Type        string    `json:"type"`
	Time        time.Time `json:"time" doc:"Business time, in UTC"`
	RecordedAt  time.Time `json:"recordedAt" doc:"The record's stamp, in UTC"`
	CommandID   string    `json:"commandId,omitempty"`
	CausationID string    `json:"causationId,omitempty" doc:"What caused it: a request, or an event"`
	UserID      string    `json:"userId,omitempty"`
	Partition   int32     `json:"partition" minimum:"0"`
	Offset      int64     `json:"offset" minimum:"0"`
}

// Cause is a node of the tree of causes: a request, which is known by its id alone, or an event.
type Cause struct {
	Kind    string  `json:"kind" enum:"request,event"`
	ID      string  `json:"id"`
	Event   *int    `json:"event,omitempty" minimum:"0" doc:"Its place in events"`
	Effects []Cause `json:"effects,omitempty" doc:"What it caused, in order"`
}

// Correlation is the events of one correlation id and what caused what.
type Correlation struct {
	CorrelationID string            `json:"correlationId"`
	Events        []CorrelatedEvent `json:"events" nullable:"false" doc:"In the order of recording; those of one partition in its order"`
	Tree          []Cause           `json:"tree" nullable:"false" doc:"Requests and the events that they caused. An event that a request has the id of stands between the two"`
	Truncated     bool              `json:"truncated,omitempty" doc:"There are more events than an answer has; events and tree are of the first"`
}

// effectsDepthMax bounds how deep the tree is nested; deeper nodes begin at the root again.
const effectsDepthMax = 64

func (a *API) registerCorrelations() {
	a.register(route{operation: &huma.Operation{
		OperationID: "read-correlation", Method: http.MethodGet, Path: "/v1/correlations/{id}", Tags: []string{"Correlations"},
		Summary:     "Read the events of a correlation, and what caused what",
		Description: "From the system view events: as far as the projectors have come.",
		Parameters: []*huma.Param{
			{Name: "id", In: "path", Required: true, Description: "The correlation id, percent-encoded", Schema: &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(event.HeaderValueBytesMax)}},
			queryParam(paramLimit, "Events at most", &huma.Schema{Type: huma.TypeInteger, Minimum: number(1), Maximum: number(correlationMax), Default: correlationMax}),
		},
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("The events", reflect.TypeFor[Correlation]()),
			"400": a.problemResponse("A parameter is wrong; errors names each"),
			"404": a.problemResponse("Codes no-events, and unknown-view where the projectors keep no view events"),
			"503": a.problemResponse("Codes slow and unavailable"),
		},
	}, serve: a.serveCorrelation})
}

func (a *API) serveCorrelation(c *call) error {
	p, err := paramsOf(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	p.only(paramLimit)
	limit := int(p.integer(paramLimit, correlationMax, 1, correlationMax))
	id := c.r.PathValue("id")
	if err := checkCorrelation(id); err != nil {
		p.faults = append(p.faults, Fault{Location: "path.id", Message: err.Error()})
	}
	if err := p.err(); err != nil {
		return err
	}
	var out Correlation
	err = a.onView(c.ctx(), "events", func(v *view) error {
		out = Correlation{CorrelationID: id}
		return a.readCorrelation(c, v, &out, limit)
	})
	switch {
	case err != nil:
		return err
	case len(out.Events) == 0:
		return problem(http.StatusNotFound, codeNoEvents, "no event of this correlation id is known here")
	}
	out.Tree = treeOf(out.Events)
	return respondJSON(c, out)
}

func checkCorrelation(id string) error {
	if len(id) > event.HeaderValueBytesMax {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(id), event.HeaderValueBytesMax)
	}
	return checkText(id)
}

// readCorrelation repeats the condition of the index, which leaves the events of none out.
func (a *API) readCorrelation(c *call, v *view, out *Correlation, limit int) error {
	sql := `select category, stream, version, id, type, time, recorded_at, command_id, causation_id, user_id, "partition", "offset" from ` + v.table +
		` where correlation_id = $1::text and correlation_id <> '' order by recorded_at, category, "partition", "offset" limit $2::bigint`
	return a.query(c.ctx(), c.route, true, sql, []any{out.CorrelationID, int64(limit) + 1}, func(rows pgx.Rows) error {
		for rows.Next() {
			if len(out.Events) == limit {
				out.Truncated = true
				return nil
			}
			var e CorrelatedEvent
			if err := rows.Scan(&e.Category, &e.Stream, &e.Version, &e.ID, &e.Type, &e.Time, &e.RecordedAt, &e.CommandID, &e.CausationID, &e.UserID, &e.Partition, &e.Offset); err != nil {
				return err
			}
			e.Time, e.RecordedAt = e.Time.UTC(), e.RecordedAt.UTC()
			out.Events = append(out.Events, e)
		}
		return nil
	})
}

// forest is the tree of causes while it is made. Events are known by their place.
type forest struct {
	events  []CorrelatedEvent
	effects map[int][]int // events by the event that caused them
	placed  []bool
}

// treeOf orders events by what caused them.
func treeOf(events []CorrelatedEvent) []Cause {
	f := &forest{events: events, effects: map[int][]int{}, placed: make([]bool, len(events))}
	place := make(map[string]int, len(events))
	for i, e := range events {
		if _, twice := place[e.ID]; !twice {
			place[e.ID] = i
		}
	}
	var roots []Cause
	var rootEvents [][]int
	request := map[string]int{} // roots by the id of the request
	for i, e := range events {
		if by, known := place[e.CausationID]; known && by != i {
			f.effects[by] = append(f.effects[by], i)
			continue
		}
		at, known := request[e.CausationID]
		if !known {
			at = len(roots)
			request[e.CausationID] = at
			roots, rootEvents = append(roots, Cause{Kind: "request", ID: e.CausationID}), append(rootEvents, nil)
		}
		rootEvents[at] = append(rootEvents[at], i)
	}
	for at, caused := range rootEvents {
		roots[at].Effects = f.grow(caused, 1)
	}
	for i := range events { // in a circle, or too deep
		if !f.placed[i] {
			roots = append(roots, f.grow([]int{i}, 0)...)
		}
	}
	return roots
}

// grow makes nodes of events and of what they caused.
func (f *forest) grow(caused []int, depth int) []Cause {
	if depth > effectsDepthMax {
		return nil
	}
	var out []Cause
	for _, i := range caused {
		if f.placed[i] {
			continue
		}
		f.placed[i] = true
		out = append(out, Cause{Kind: "event", ID: f.events[i].ID, Event: &i, Effects: f.grow(f.effects[i], depth+1)})
	}
	return out
}
