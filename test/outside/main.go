// Command shop is a program as a team would write it: a decider, two views, and Foldstream's
// services as its subcommands.
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
		Views:    []projection.View{orderList(), customers()},
	}))
}
