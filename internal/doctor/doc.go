// Package doctor finds out whether a broker does what Foldstream rests on, and says what it saw.
//
//	report, err := doctor.Run(ctx, doctor.Config{Kafka: opts, Layout: layout, Fencing: true})
//	report.Verdict() // fit, unfit or denied
//
// Each step is one promise that the protocols take for granted. It does something, compares the
// broker's answer with what is needed, and becomes one [Finding]: what was done, what was
// answered, the verdict, and for a wrong answer what it means and what to do.
//
// The quick steps read: brokers, versions, topics, schemas, Postgres. The steps of fencing write,
// and only to a scratch topic "<ns>.doctor-<random>", which no name of a project can be (it has a
// hyphen), under transactional ids that begin with its name. The topic is deleted at the end, also
// when the context ends in between. What a broker keeps of a transactional id it forgets by itself.
//
// A broker is not believed: what it acknowledged and what it refused is held against what is read
// back from the log at the end, batch by batch.
//
// # Concurrency
//
// Run does one step after the other and shares nothing; any number of them may run at once.
//
// # Files
//
//	report.go    verdicts, findings, the report
//	doctor.go    Config, Run, steps one after the other
//	quick.go     what is looked at without --fencing
//	scratch.go   the scratch topic, from creation to deletion
//	lane.go      one partition of it: batches by hand, what was acknowledged
//	wire.go      the bytes of a batch, and of what is read back
//	takeover.go  a new owner against the one before
//	held.go      a living owner's renewal, and the end of a producer id
//	batches.go   atomic, contiguous, stamped, to a topic id
//	writer.go    the same by the writer that ingest runs
//	readback.go  what the log holds in the end
//	broker.go    settings, rights, groups
package doctor
