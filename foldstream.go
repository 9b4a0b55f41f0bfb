// Package foldstream embeds the reference project: its foldstream.yaml and its schemas. The
// programs in cmd/ run it, with the deciders and views of internal/domain, when no other
// project is named.
package foldstream

import "embed"

// Project is the reference project's folder.
//
//go:embed foldstream.yaml schemas/avro/*/*.avsc
var Project embed.FS
