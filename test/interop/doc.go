// Package interop proves that clients in any language can use Foldstream with nothing but a Kafka
// library and an Avro library: real ones are run as processes of their own against a real broker,
// and what they say is compared with what a plain Go client sees.
//
//	world_test.go         the stack: Apache Kafka, Postgres, the shop of examples/ as a process
//	tools_test.go         Python, Node.js and Java with the packages that the clients need
//	plan_test.go          the requests that every client sends, and the answers that it must get
//	log_test.go           the events as a plain Go client reads them
//	clients_test.go       each client runs the plan (clients/README.md)
//	apicurio_test.go      the same against another registry (go test -apicurio; make interop)
//	readme_test.go        the README's examples, run as written
//	schemathesis_test.go  the HTTP API against its own OpenAPI document
//
// Packages are fetched once per lock file, by pip, npm and Maven, into the user's cache.
package interop
