package processlog

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/uuid"

	"github.com/foldstream/foldstream/pkg/event"
)

// workflowIDBytesMax leaves most of an execution id to the case.
const workflowIDBytesMax = 100

// WorkflowID makes a workflow's id from its name: letters and digits in lower case, everything
// else a single "-" between them, cut at 100 bytes. It has no ":", which separates it from the
// case in an execution's id.
func WorkflowID(name string) (string, error) {
	var b strings.Builder
	gap := false
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) || r == unicode.ReplacementChar {
			gap = true
			continue
		}
		text := strings.ToLower(string(r))
		if gap && b.Len() > 0 {
			text = "-" + text
		}
		gap = false
		if b.Len()+len(text) > workflowIDBytesMax {
			break
		}
		b.WriteString(text)
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("workflow name %.40q has no letter or digit to make an id of", name)
	}
	return b.String(), nil
}

func executionID(workflowID, caseID string) string { return workflowID + ":" + caseID }

// commandNamespace is the UUID namespace of the commands' ids.
var commandNamespace = uuid.MustParse("3c2f7f1e-6a44-5d0b-9c07-5b1d3f0a8e21")

// commandID is a UUIDv5 of all that makes a command: its stream, its place in the stream, type,
// time and content. The parts are separated by NUL, which none of them contains.
func commandID(c Command, place int, content ...string) string {
	parts := append([]string{c.Category, c.StreamID, strconv.Itoa(place), c.Type, event.FormatTime(c.Time)}, content...)
	return uuid.NewSHA1(commandNamespace, []byte(strings.Join(parts, "\x00"))).String()
}
