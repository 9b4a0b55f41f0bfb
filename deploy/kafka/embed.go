// Package kafka carries the Maven description of the Apache Kafka broker that
// development stacks and tests run as a plain Java process, so that a binary
// outside the checkout can fetch the same jars.
package kafka

import _ "embed"

// Version is the release of Apache Kafka that pom.xml names. A test holds the
// two together.
const Version = "4.3.1"

// POM is pom.xml, byte for byte. Its runtime scope is the broker's class path.
//
//go:embed pom.xml
var POM []byte
