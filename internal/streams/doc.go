// Package streams reads single streams: their events, their state at a version or a time, the
// outcome of a command, and what is appended from now on.
//
// # Where the events come from
//
// Kafka cannot look a key up, so a projector keeps an index, the system view <ns>.events, in
// Postgres. It is always a little behind. A read joins it with the rest of the log:
//
//	1  ask the leader for the end offset of the stream's events partition, and at the same time,
//	   in one snapshot of Postgres, for the index's next offset there and the stream's rows
//	2  next offset < end offset: read [next, end) from the log, keep the stream's own records
//
// An event that was acknowledged before the read began lies below the end offset of step 1, so
// it is in the index or in the tail: reads see all writes that went before them, whoever made
// them, and ask nobody but Kafka and Postgres. Each record of the tail passes PROTOCOL W6 with
// the claim that the index keeps beside its offset, so a void record is seen by nobody. Versions
// must follow each other without a gap, else the read fails.
//
// The tail is bounded (TailBytesMax, TailRecordsMax): behind a longer one a read fails with a
// *StaleError that says how far the index is behind. Without Postgres the whole log is the tail,
// which serves small logs.
//
// Reads of one partition share its tail: it is kept, in bounded memory, until the index has
// passed it, so that a read fetches only what came since the last one.
//
// # State
//
// A state is folded from the nearest history slot of the system view <ns>.snapshots and the
// events behind it, which are read with the rest, in one round trip to Postgres. A slot counts only if it is of this log, of this version of the state, and if
// the event it stands behind is where it says; else it is skipped and counted.
//
// "At a time" is PROTOCOL T1: the state after every event below the partition's first offset whose
// stamp lies behind that time, which is where the running maximum of the stamps crosses it. A new
// leader's clock that is behind does not disturb it.
//
// Business times are those of the index, cut to microseconds, wherever an event was read.
//
// # Speed
//
// All statements of a read go in one pipeline, with the planner held to the primary key, by which a
// stream's rows come in their order and nothing is sorted. Rows are given to a Taker as they come. A
// new Store connects and binds before it is asked.
//
// # Concurrency
//
// A Store may be used from any goroutine. A Feed belongs to one.
package streams
