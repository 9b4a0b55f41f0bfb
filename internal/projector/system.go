package projector

import (
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
)

// The kinds of the system views. They are kept by the same worker as a team's views, but have no
// functions: their rows are made of records as they are.
const (
	kindEvents    projection.Kind = "events"
	kindSnapshots projection.Kind = "snapshots"
)

// Names and version of the system views. Views of a team cannot have these names.
const (
	eventsName    = "events"
	snapshotsName = "snapshots"
	systemVersion = 1
)

// SystemConsumers names the consumers that keep the system views. The dead-letter topic of each
// must be there.
func SystemConsumers() []string {
	return []string{topics.ConsumerView(eventsName, systemVersion), topics.ConsumerView(snapshotsName, systemVersion)}
}

func systemViews(categories []string) []projection.View {
	return []projection.View{eventsView(categories), snapshotsView(categories)}
}

func column(name, typ string) projection.Column {
	return projection.Column{Name: name, Type: typ, Wire: typ}
}

// recordedAtColumn is what the events are split into months by.
const recordedAtColumn = "recorded_at"

// eventsView is the index that makes a single stream loadable: every event of the categories, as
// it stands in the log. The payload is kept as it is and never decoded, so that events of types
// that nobody knows here are indexed, too.
func eventsView(categories []string) projection.View {
	return projection.View{
		Name: eventsName, Version: systemVersion, Kind: kindEvents, Categories: sorted(categories),
		Key: []projection.Column{
			column("category", "text"), column("stream", "text"), column("version", "bigint"), column(recordedAtColumn, "timestamptz"),
		},
		Columns: []projection.Column{
			column("id", "text"), column("type", "text"), column("time", "timestamptz"),
			column("correlation_id", "text"), column("causation_id", "text"), column("user_id", "text"), column("command_id", "text"),
			column("partition", "integer"), column("offset", "bigint"),
			column("header_names", "text[]"), column("header_values", "bytea[]"), column("value", "bytea"),
		},
	}
}

// snapshotsView keeps the history slots of states, the latest record of each key.
func snapshotsView(categories []string) projection.View {
	return projection.View{
		Name: snapshotsName, Version: systemVersion, Kind: kindSnapshots, Categories: sorted(categories),
		Key: []projection.Column{column("category", "text"), column("stream", "text"), column("slot", "integer")},
		Columns: []projection.Column{
			column("version", "bigint"), column("offset", "bigint"), column("topic_id", "text"), column("state_version", "integer"),
			column("taken_at", "timestamptz"), column("encoding", "text"), column("value", "bytea"),
		},
	}
}

// keepsVersions says whether the last version of each stream stands in a table of its own
// (PROTOCOL P2). In an entity view the stream's row has it; slots are not numbered by streams.
func keepsVersions(v projection.View) bool {
	return v.Kind != projection.KindEntity && v.Kind != kindSnapshots
}

func sorted(categories []string) []string {
	out := slices.Clone(categories)
	slices.Sort(out)
	return slices.Compact(out)
}

// eventRow is an event's row, in the order of the view's layout.
func eventRow(r event.Recorded) projection.Row {
	names, values := make([]string, len(r.Extra)), make([][]byte, len(r.Extra))
	for i, h := range r.Extra {
		names[i], values[i] = storable(h.Key), h.Value
	}
	return projection.Row{
		r.Stream.Category, r.Stream.ID, int64(r.Version), recordedAt(r.RecordedAt),
		storable(r.ID), storable(r.Type), r.Time.UTC().Truncate(time.Microsecond),
		storable(r.CorrelationID), storable(r.CausationID), storable(r.UserID), storable(r.CommandID),
		r.Partition, r.Offset, names, values, r.Value,
	}
}

// storable is text as Postgres can hold it. A writer of ours lets no other text into the log but
// in the names of foreign headers.
func storable(s string) string {
	if projection.CheckText(s) == nil {
		return s
	}
	return deadletter.CleanText(s, 3*len(s)) // each replacement has 3 bytes
}
