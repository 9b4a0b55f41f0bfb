// Package rest serves a [registry.Registry] by the subset of the Confluent Schema Registry HTTP
// API that Confluent's clients use (docs/registry.md).
//
// A subject is a record's full name (RecordNameStrategy). What is served is what is registered:
// one text per version, each with an id of its own, nothing ever deleted. Reads come from the
// registry's memory.
//
// Every answer is JSON. A fault is {"error_code", "message"} with Confluent's codes; the message
// says what to do. A fault of the request is a 4xx; 503 says that the registry did not answer.
package rest
