// Package container runs a check, and then test suites of the main module,
// against a Kafka broker in a container. It is a module of its own, so that
// the main one does not carry the dependencies of testcontainers-go.
//
// The test needs a container engine and the build tag container:
//
//	cd test/container && GOWORK=off go test -tags container -v .
//
// Environment:
//
//	FOLDSTREAM_CONTAINER_IMAGE   the broker's image; it must have the start
//	                             scripts of confluentinc/confluent-local
//	FOLDSTREAM_CONTAINER_SUITES  packages of the main module, separated by
//	                             blanks, whose tests run against the broker;
//	                             ./internal/testkit by default
//
// The suites find the broker by FOLDSTREAM_TEST_BROKERS, under the name
// external.
package container
