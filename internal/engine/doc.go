// Package engine is the single writer: it gives Kafka what it lacks, optimistic concurrency per
// aggregate, idempotent commands, gapless versions (DESIGN §5; PROTOCOL W1–W17).
//
// # Model
//
// A category has a commands topic and an events topic with the same partition count. A consumer
// group assigns the commands partitions; whoever is assigned partition p of the commands topic
// owns partition p of the events topic. An owner fences the one before it by a claim, reads the
// events partition up to that claim, and then knows every stream's version and state, every
// command id that may come again, and how far the commands topic was handled. Nothing else is
// needed: the events partition is the only truth.
//
//	record ─► parse, re-route? ─► inspect payload ─► repeated? ─► expected version? ─► decide ─► append
//	                │                    │                │              │                │         │
//	             outbox             letter, invalid    duplicate      conflict        rejected   accepted
//
// # Concurrency
//
// One goroutine per partition (owner.run) owns all that is known of it; there are no locks on it.
// It is reached through its mailbox: fetched commands come from the poll loop, acknowledgements
// from the appender's senders, acknowledged replies from the outbox. The poll loop never blocks:
// a partition with a full inbox has its fetch paused.
//
// # What is speculative
//
// Commands are decided against all events decided before them, acknowledged or not. Nothing is
// answered before its batch is acknowledged; an answer without events waits for every batch it
// was decided on and for a proof of ownership sent after the decision (W15). When a batch is
// refused for good, it and everything decided behind it is taken back, newest first, and decided
// again one by one. When the owner is fenced, everything is dropped, and the log decides.
//
// # Files
//
//	engine.go    the group: assignment, polling, commits, leaving
//	owner.go     one partition: the loop, what is under way, undo, renewal
//	takeover.go  claim, membership, checks against the commands topic
//	recovery.go  what is learnt from the log
//	command.go   deciding one command
//	category.go  a category's types, bound to schemas; calls of a team's own code
//	streams.go   streams, their encoded state, the window of command ids; coldstream.go and
//	             coldtable.go, those that are packed
//	snapshots.go saving streams and checkpoints, and reading them back
//	submit.go    requests in memory, fair between streams
//	pacer.go     when all owners send together
//	coldtable.go streams at rest, packed (coldstream.go) into slabs
//	outbox.go    replies, re-routes, letters
//	logreader.go bounded reads of partitions
package engine
