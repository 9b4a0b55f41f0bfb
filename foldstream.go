// Package foldstream embeds the reference project: its foldstream.yaml, its schemas and the views
// that are declared in YAML. The programs in cmd/ run it, with the deciders and the other views of
// internal/domain, when no other project is named.
package foldstream

import "embed"

// Project is the reference project's folder.
//
//go:embed foldstream.yaml schemas/avro/*/*.avsc views/*.yaml
var Project embed.FS
