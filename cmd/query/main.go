// Command query answers from the views in Postgres over HTTP.
// It is the same as the subcommand of foldstream.
package main

import (
	"os"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/reference"
)

func main() {
	os.Exit(app.Execute(app.NewServiceCommand(reference.Program("query"), "query")))
}
