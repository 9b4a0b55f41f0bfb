// The fault harness: a module of its own, so that what only it needs (a proxy, a checker of
// histories) is no dependency of Foldstream. The go.work file above ties it in.
module github.com/foldstream/foldstream/test/faults

go 1.26.0

require (
	github.com/Shopify/toxiproxy/v2 v2.12.0
	github.com/anishathalye/porcupine v1.3.1
	github.com/rs/zerolog v1.33.0
)
