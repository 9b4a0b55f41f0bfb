// Package client holds one suite of behaviours of pkg/client, run over Kafka, on the embedded broker
// and on the real one, and over HTTP in front of the real one.
package client
