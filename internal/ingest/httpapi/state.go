package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/event"
)

func (a *API) serveState(w http.ResponseWriter, r *http.Request) error {
	id, err := a.streamOf(r)
	if err != nil {
		return err
	}
	at, err := stateAt(r)
	if err != nil {
		return err
	}
	store, err := a.reader()
	if err != nil {
		return err
	}
	st, err := store.State(r.Context(), id, at)
	if err != nil {
		return readProblem(err)
	}
	return answerJSON(w, StreamState{
		Category: id.Category, ID: id.ID, Version: int64(st.Version), Time: st.RecordedAt, State: json.RawMessage(st.JSON),
	})
}

// stateAt reads which state is asked for.
func stateAt(r *http.Request) (streams.At, error) {
	values, err := query(r, "version", "time")
	if err != nil {
		return streams.At{}, err
	}
	p := readParams{values: values}
	at := streams.At{Version: event.Version(p.integer("version", 0, versionMax)), Time: p.time("time")}
	if at.Version != 0 && !at.Time.IsZero() {
		p.fault("time", "stands together with version: a state is either at a version or at a time")
	}
	return at, p.err()
}
