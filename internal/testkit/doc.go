// Package testkit gives tests the real servers of the machine they run on.
//
//	func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }
//
//	func TestAppend(t *testing.T) {
//		for _, k := range testkit.Kafkas(t) {
//			t.Run(k.Name, func(t *testing.T) {
//				t.Parallel()
//				ns := testkit.Namespace(t)
//				client := k.Client(t)
//				…
//			})
//		}
//	}
//
// # Shared and private servers
//
// Kafkas and Postgreses start each server once per test process and share it:
// tests keep apart by a namespace or a database of their own, and run in
// parallel. A test that kills, stops or tunes its broker starts a private one
// by StartKafkaJVM or StartKfake.
//
// Main stops the shared servers. A package without it leaves nothing behind
// either on Linux: the kernel ends the servers with the test process, and the
// next test process removes their folders.
//
// # Missing servers
//
// A server that the machine cannot run is left out, and is named at the end of
// the run, on standard error and in the file of [EnvMissingFile]. With
// [EnvRequireAll] set to 1 it fails the test that asked for it. With -short
// only the embedded broker and one Postgres are used, and nothing counts as
// missing.
package testkit
