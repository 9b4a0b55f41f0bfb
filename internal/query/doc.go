// Package query is the read side over HTTP (docs/query-api.md): the rows of every view, typed
// answers and statistics that a program defines over its views, and the events of a correlation.
//
// # Shape
//
// What views there are, and their columns, is read from Postgres (catalogue.go) and not from the
// program: a service of an older release serves the version that is live, whatever it was built
// with. Rows are read from the tables of one version, the live one, so that a wait and the read
// behind it are about the same version. Postgres' binary values become JSON without a detour
// through Go values (encode.go).
//
//	guard ─► view ─► parameters ─► wait ─► queue ─► statement ─► JSON
//
// A statement holds only names from the catalogue; what a client sends is a parameter, always.
// All connections are read-only and have a statement timeout.
//
// # Concurrency
//
// An API is immutable once made but for its catalogue, which is replaced as a whole, and its
// counters. Those who wait for the same view share one poller (wait.go). Each answer is made in
// memory, within ResponseBytesMax, before its first byte is written, so that a statement that met
// a view in the middle of a switch can be run again.
//
// # Files
//
//	query.go        configuration, construction, life
//	guard.go        what stands before each handler; the queue of the pool
//	problem.go      problem documents
//	catalogue.go    the live views
//	column.go       the types of columns: operators, reading of parameters
//	selection.go    the parameters of a list
//	cursor.go       cursors
//	statement.go    SQL
//	encode.go       rows to JSON
//	read.go         running a statement
//	lane.go         rows by key, for all who ask at once
//	wait.go         waiting for what was just written
//	views.go        the routes of views
//	resources.go    those views under names of their own
//	statistics.go   aggregates
//	correlations.go events of one correlation
//	openapi.go      the document
package query
