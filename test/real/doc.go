// Package real holds the tests that hurt whole processes: the shipped binary is built and run as
// child processes on a real broker and a real Postgres, killed, stopped and restarted, and what
// is left is checked from outside, by plain clients that share no state with it.
//
//	kills_test.go    SIGKILL of ingest and projector during an import
//	fencing_test.go  SIGSTOP of an owner past its session time-out, then SIGCONT
//	restart_test.go  the same import again, after a restart
//
//	world_test.go    broker, database, namespace, binary: what a test has
//	child_test.go    one child process
//	import_test.go   an import, as a child
//	journal_test.go  what stands in the topics, followed live
//	log_test.go      the log read once and checked whole
//	checks_test.go   that the checks find what they look for
//	views_test.go    the views against an independent fold of the log
//
// # What is random
//
// The sample that is imported and the moments of the kills come from a seed, which is printed.
// FOLDSTREAM_TEST_SEED sets it. Moments are those of a machine, so that a seed makes a run
// similar, not equal.
//
// # What is printed
//
// Figures are lines on standard output that begin with "real:".
package real
