// Package avro embeds the Avro schemas: Foldstream's own envelopes (foldstream/) and the
// reference domain's, one folder per category, one file per type and version.
package avro

import "embed"

// Files holds <category>/<Name>.v<version>.avsc.
//
//go:embed */*.avsc
var Files embed.FS
