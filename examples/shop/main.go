// Command shop is a project with rules: an order is decided in Go, and asked for in any language.
// Its subcommands are Foldstream's services and tools, with this project in them.
package main

import (
	"embed"
	"os"

	"github.com/foldstream/foldstream/pkg/app"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/projection"
)

//go:embed foldstream.yaml schemas
var project embed.FS

func main() {
	os.Exit(app.Main(app.Program{
		Name: "shop", Project: project,
		Deciders: []decider.Any{orders},
		Views:    []projection.View{orderList()},
	}))
}
