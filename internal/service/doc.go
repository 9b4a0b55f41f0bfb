// Package service is what every Foldstream process has around its work: configuration,
// connections to Kafka and Postgres, logs, health and metrics, signals and exit codes.
//
// Nothing here is global. A process builds a Config (Load), a logger (NewLogger) and a
// registry of metrics of its own, hands them down, and runs its components in a Group, which
// owns the order of stopping:
//
//	first signal, or a component fails
//	  → Ready answers 503, every component's context ends: they drain
//	  → when all have returned, or the drain deadline is over, or a second signal comes
//	  → the background components (the HTTP server) stop last, so that probes and scrapes see the drain
//
// A Config and everything made from it is read-only and may be shared. A Group and an
// HTTPServer are run once, from one goroutine.
package service
