// Package harness runs Foldstream's services as real processes under faults and checks, from
// outside, that what they promise holds.
//
// # Model
//
//	plan      a seed gives a schedule of faults and the content of a load
//	run       processes serve, clients ask, faults strike: everything seen is written down
//	heal      faults end; what is owed must be done within limits
//	observe   the topics are read by a plain client, the tables by plain SQL
//	check     a pure function from the evidence to violations
//
// A Run is the evidence: every sending with its replies, every record of the commands, events and
// dead-letter topics, every row of the views, every fault. Check looks at nothing else, so a run
// that was written to a file can be checked again, by other rules or by a debugger.
//
// # What is random
//
// The schedule and the load's content come from the seed and nothing else; the moments at which
// they meet the services are those of the machine. Equal seeds give equal schedules, and similar
// runs.
//
// # Files
//
//	evidence.go   what a run leaves behind
//	check.go      the invariants of DESIGN §11
//	linear.go     the history of a stream against a register of one version
//	report.go     evidence as a file, results as a table
//	schedule.go   faults from a seed
//	load.go       clients
//	stack.go      broker, database, binary
//	service.go    child processes
//	observe.go    topics and tables, from outside
//	faults.go     what a fault does, and whether it hit
//	cells.go      which faults belong together
//	run.go        one cell, from plan to verdict
package harness
