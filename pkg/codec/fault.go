package codec

// Fault is one thing wrong with a schema.
type Fault struct {
	Path    string // dotted fields from the root's name; "[]" for the items of an array or map
	Message string // what is wrong
	Remedy  string // what to do; may be empty
}

// String returns "path: message (remedy)".
func (f Fault) String() string {
	if f.Remedy == "" {
		return f.Path + ": " + f.Message
	}
	return f.Path + ": " + f.Message + " (" + f.Remedy + ")"
}
